"""What the commands share: the config schemas made known, and every refusal told in one line."""

import dataclasses
import difflib
import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from hp_lightning.common import run_dir as runs
from hp_lightning.common.console import lost_output
from hp_lightning.common.errors import InputError, Interrupted, RunError
from hp_lightning.common.files import PROJECT
from hp_lightning.common.hydra_grammar import quoted
from hp_lightning.schema import course, evaluate, generate, train
from hp_lightning.schema.train import TrainScriptConfig

# Keys of a training config whose values are text or paths as they were typed.
FREE_TEXT = (
    "data.path", "data.delimiter", "data.row_separator", "data.cache_dir", "tokenizer.from_run", "run_dir", "resume",
    "logger.sample_prompts",
)  # fmt: skip

LITERAL = ("prompt", "text", "template")  # of those of any config, what is text, in brackets too

command: str | None = None  # the word after hp-lightning; None in train.py and generate.py

TOLD = (HydraException, OmegaConfBaseException, RunError)  # in one line; some of Hydra's are OSErrors, too

for schema_module in (train, generate, evaluate, course):
    schema_module.register()
OmegaConf.register_new_resolver("project", lambda path: str(PROJECT / path), replace=True)


def hydra_main(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """`@hydra.main` with the config of that name in `conf/`; an expected end of the job is told by `run` alone."""

    def decorator(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        decorated: Callable[[], None] = hydra.main(
            version_base="1.3", config_path=str(PROJECT / "conf"), config_name=config_name
        )(job(task))
        return decorated

    return decorator


def job(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wraps what `@hydra.main` calls, so that an expected end of the job is told by `run` alone.

    Hydra adds a line of its own about an `Exception` that leaves a job. In a sweep that is wanted: its launchers note
    it, and go on to the next job.
    """

    @functools.wraps(task)
    def wrapped(cfg: DictConfig) -> None:
        try:
            with _command_line_as_typed():
                task(cfg)
        except (RunError, OmegaConfBaseException, OSError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            raise _Refused from error

    return wrapped


@contextmanager
def _command_line_as_typed() -> Iterator[None]:
    """With the command, which Hydra must not see: Lightning starts the processes of other devices by the same words."""
    for_hydra = sys.argv
    sys.argv = [for_hydra[0], *([] if command is None else [command]), *for_hydra[1:]]
    try:
        yield
    finally:
        sys.argv = for_hydra


def program() -> str:
    """What a person has started, as it stands before an error: `hp-lightning train` or `train.py`."""
    return Path(sys.argv[0]).name if command is None else f"hp-lightning {command}"


def run(main: Callable[[], None], schema: type | None, free_text: tuple[str, ...] = ()) -> None:
    """Runs a function as a command-line program: what a person got wrong is one line and a status.

    Args:
        main: a function that `hydra_main` has decorated; or one that reads the words itself
        schema: the dataclass of its config, from which a misspelt key is corrected; None without Hydra
        free_text: keys whose values are text or paths as they were typed, commas, quotes and all; in a sweep, where
            commas part the values, and in its jobs, Hydra's own rules hold
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    # Hydra prints what goes wrong in its own format, over several lines, with status 1; in this mode it raises.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.raiseExceptions = False  # an output that takes nothing is told once, in the end
    ending = _ending(main, schema, free_text)
    told = isinstance(ending, TOLD)
    lost = lost_output("\n" if isinstance(ending, OSError) and not told else "")  # an empty line to find out
    if lost is not None and not told:
        ending = lost
    if isinstance(ending, TOLD):
        _refuse(ending, schema)
    if ending is not None:
        raise ending


def _ending(main: Callable[[], None], schema: type | None, free_text: tuple[str, ...]) -> Exception | SystemExit | None:
    """Runs it; gives what is to be told of its end, if it was not a good one."""
    try:
        if schema is not None:
            sys.argv[1:] = _settled_options(sys.argv[1:], may_sweep=schema is TrainScriptConfig)
        if "-m" not in sys.argv and not {runs.HANDED_OVER, runs.IN_SWEEP} & os.environ.keys():
            sys.argv[1:] = [_quoted(word) if word.partition("=")[0] in free_text else word for word in sys.argv[1:]]
        main()
    except _Refused as refused:
        assert isinstance(refused.__cause__, Exception)
        return refused.__cause__
    except (*TOLD, OSError, SystemExit) as end:
        return end
    except ValueError as error:
        if not str(error).startswith("Config group override"):
            raise
        return InputError(
            "config.unknown_choice",
            "a config group was given null or a number: give the name of a choice, as in model=tiny",
        )
    except KeyboardInterrupt:
        return Interrupted("cli.interrupted", "stopped by SIGINT", signal.SIGINT)
    return None


def _settled_options(arguments: list[str], may_sweep: bool) -> list[str]:
    """The words with -m before all others, where Hydra's parser takes it; it answers nonsense with its whole usage.

    Raises:
        InputError: there are options that it does not know, or that exclude each other
    """

    def refuse(message: str) -> NoReturn:
        raise InputError(
            "cli.usage", f"{message}: settings are given as key=value, options before them; --help lists the keys"
        )

    others = [word for word in arguments if word not in ("-m", "--multirun", "hydra.mode=MULTIRUN")]
    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = refuse  # type: ignore[method-assign]
    options = parser.parse_args(others)
    sweeps = options.multirun or len(others) < len(arguments)
    if sweeps and not may_sweep:
        raise InputError("cli.no_sweeps", "-m begins a sweep, and only hp-lightning train has sweeps: leave it out")
    if sum((sweeps, options.run, bool(options.cfg), options.info is not None, options.shell_completion)) > 1:
        raise InputError(
            "cli.exclusive", "-m, --run, --cfg, --info and --shell-completion exclude each other: leave all but one out"
        )
    if options.resolve and options.cfg is None and not options.help:
        refuse("--resolve goes with --cfg")
    if options.experimental_rerun is not None:
        raise InputError(
            "cli.rerun", "--experimental-rerun reads a pickled job, and pickles can run anything: use resume=RUN"
        )
    if options.shell_completion and not {"install=bash", "uninstall=bash", "query=bash"} & set(others):
        raise InputError("cli.usage", "--shell-completion does not say what to do: add install=bash or uninstall=bash")
    return ["-m", *others] if sweeps else others


def _quoted(argument: str) -> str:
    """key=value with the value in Hydra's quotes; a list stays one, where there can be one."""
    key, _, value = argument.partition("=")
    if value == "null" or (key not in LITERAL and re.fullmatch(r"\[.*\]", value, re.DOTALL)):
        return argument
    return f"{key}={quoted(value)}"


class _Refused(BaseException):
    """Carries a job's refusal past Hydra, which handles only `Exception`."""


def _refuse(error: Exception, schema: type | None) -> NoReturn:
    refusal = error if isinstance(error, RunError) else _in_our_words(error, schema)
    print(refusal.line(program()), file=sys.stderr)
    raise SystemExit(refusal.exit_status)


def _in_our_words(error: Exception, schema: type | None) -> InputError:
    """What Hydra and OmegaConf say of a config, in a line and with a code."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        choices = ", ".join(error.options)
        return InputError("config.unknown_choice", f"there is no {group}={choice}: take one of {choices}")
    if isinstance(cause, OmegaConfBaseException):
        return _of_a_key(cause, schema)
    if unmatched := re.match(r"Could not override '([^'@]+)", str(error)):
        return _unknown_key(unmatched[1], schema)
    message = str(error).partition("Config search path")[0].partition("See https://hydra.cc")[0].strip()
    if isinstance(error, OverrideParseException):
        advice = """a value with quotes, commas or brackets in it stands in quotes twice: 'key="value"'"""
        return InputError("config.syntax", f"{message}; {advice}")
    return InputError("config.not_composed", message)


def _of_a_key(error: OmegaConfBaseException, schema: type | None) -> InputError:
    key, message = error.full_key, str(error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue):
        return InputError("config.missing", f"{key} is not set: give it on the command line, {key}=...")
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        return _unknown_key(str(key or error.key), schema)
    if "not a ListConfig" in message:
        return InputError("config.wrong_type", f"{key} must be a list: {key}=[a,b]")
    if "is not Optional" in message:
        return InputError("config.null", f"{key}=null is no choice: give a value, or leave it out")
    return InputError("config.wrong_type", f"{key}: {message}")


def _unknown_key(key: str, schema: type | None) -> InputError:
    known = list(_keys(schema))
    close = difflib.get_close_matches(key, known, n=1)
    same_name = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = close or same_name
    advice = f"did you mean {hint[0]}?" if hint else "--help lists the keys and groups"
    return InputError("config.unknown_key", f"there is no config key {key}: {advice}")


def _keys(schema: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(schema):
        yield prefix + field.name
        if dataclasses.is_dataclass(field.type):
            yield from _keys(field.type, f"{prefix}{field.name}.")
