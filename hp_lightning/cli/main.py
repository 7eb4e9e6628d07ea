"""hp-lightning: one command for everything that a person does with the project."""

import difflib
import importlib
import signal
import sys

from hp_lightning.common.errors import InputError

COMMANDS = {
    "train": "train a model on a CSV of books, resume a run, or start a sweep (-m)",
    "generate": "generate text with a trained model",
    "evaluate": "measure how well a trained model predicts its held-out text",
    "sentiment": "classify the sentiment of texts, or finetune a model with labels",
    "export": "write a trained model as a folder for transformers",
    "corpus": "look at a corpus before training: corpus PATH...",
    "compare": "compare runs and sweeps: compare DIR... [to=DIR]",
    "course": "write the sixteen steps of the course, on your own model, as a page",
}

USAGE = "hp-lightning COMMAND [key=value...]"

# Hydra's own script does not know of commands. What may follow one, Hydra is asked, with the same configs, and without
# the paths that corpus takes.
COMPLETION = r"""_hp_lightning() {
    local line=${COMP_LINE:0:COMP_POINT} words options given choices choice
    local word=${line##* }
    read -ra words <<< "${line% *}"
    if (( ${#words[@]} < 2 )); then
        choices=(COMMANDS)
    else
        options=($(grep -oE -- " (--config-(dir|name|path)|-c[dnp])[ =][^ ]+" <<< "$line"))
        given=$(printf "%s\n" "${words[@]:2}" | grep -E "^-m$|=" | tr "\n" " ")
        read -ra choices <<< "$(COMP_LINE="${words[1]} $given$word" \
            "${words[0]}" "${words[1]}" "${options[@]}" -sc query=bash 2> /dev/null)"
    fi
    COMPREPLY=()
    for choice in "${choices[@]}"; do
        [[ $choice != "$word"* ]] || COMPREPLY+=("$choice")
    done
    [[ ${COMPREPLY[0]} != *[=./] ]] || compopt -o nospace 2> /dev/null
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o default -F _hp_lightning hp-lightning"""

SCRIPTS = {
    "install=bash": COMPLETION.replace("COMMANDS", " ".join(COMMANDS)),
    "uninstall=bash": "complete -r hp-lightning",
}
NO_SCRIPT = InputError("cli.usage", f"--shell-completion is for bash: add {' or '.join(SCRIPTS)}")


def main() -> None:
    """The command line: the name of a command, then what it is told."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    completes = bool({"-sc", "--shell-completion"} & set(sys.argv)) and "query=bash" not in sys.argv
    texts = [SCRIPTS[word] for word in sys.argv if completes and word in SCRIPTS]
    if texts or name in ("-h", "--help"):
        from hp_lightning.common.console import print_help

        print_help(texts[0] if texts else _help(), "hp-lightning")
        return
    if completes or name not in COMMANDS:
        error = NO_SCRIPT if completes else _unknown(name)
        print(error.line("hp-lightning"), file=sys.stderr)
        raise SystemExit(error.exit_status)
    try:
        _run(name)
    except KeyboardInterrupt:  # while it is imported: a command tells of its end itself
        raise SystemExit(128 + signal.SIGINT) from None


def _run(name: str) -> None:
    from hp_lightning.cli import app  # Hydra takes a moment

    del sys.argv[1]
    app.command = name
    try:
        importlib.import_module(f"hp_lightning.cli.{name}").run()
    finally:
        app.command = None


def _help() -> str:
    lines = [f"  {name:<11}{purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join((USAGE, "", *lines, "", "hp-lightning COMMAND --help lists the keys of a command."))


def _unknown(name: str) -> InputError:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    advice = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
    return InputError("cli.unknown_command", f"there is no command {name}: {advice}")
