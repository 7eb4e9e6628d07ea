"""hp-lightning: one command for everything that a person does with the project."""

import difflib
import importlib
import sys

from hp_lightning.common.errors import InputError

COMMANDS = {
    "train": "train a model on a CSV of books, resume a run, or start a sweep (-m)",
    "generate": "generate text with a trained model",
    "evaluate": "measure how well a trained model predicts its held-out text",
    "sentiment": "judge the sentiment of texts, or teach a model labels",
    "export": "write a trained model as a folder for transformers",
    "corpus": "look at a corpus before training: corpus PATH...",
    "compare": "compare runs and sweeps: compare DIR... [to=DIR]",
    "course": "write the sixteen steps of the course, on your own model, as a page",
}

USAGE = "hp-lightning COMMAND [key=value...]"


def main() -> None:
    """The command line: the name of a command, then what it is told."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        from hp_lightning.common.console import print_help

        print_help(_help(), "hp-lightning")
        return
    if name not in COMMANDS:
        error = _unknown(name)
        print(error.line("hp-lightning"), file=sys.stderr)
        raise SystemExit(error.exit_status)
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
