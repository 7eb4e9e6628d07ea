"""What the commands share: the config schemas made known, and every refusal told in one line."""

import difflib
import functools
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Optional

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from hp_lightning.cli.help import help_template
from hp_lightning.common.command_line import HANDED_OVER, IN_SWEEP
from hp_lightning.common.console import lost_output
from hp_lightning.common.errors import InputError, Interrupted, RunError
from hp_lightning.common.files import PROJECT
from hp_lightning.common.hydra_grammar import quoted
from hp_lightning.schema.checks import settings
from hp_lightning.schema.course import CourseConfig
from hp_lightning.schema.evaluate import EvaluateConfig
from hp_lightning.schema.export import ExportConfig
from hp_lightning.schema.generate import GenerateConfig
from hp_lightning.schema.sentiment import SentimentConfig
from hp_lightning.schema.train import TrainScriptConfig

SCHEMAS = {
    "train": TrainScriptConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "sentiment": SentimentConfig,
    "export": ExportConfig,
    "course": CourseConfig,
}

command: str | None = None  # the word after hp-lightning; None in train.py and generate.py

TOLD = (HydraException, OmegaConfBaseException, RunError)  # in one line; some of Hydra's are OSErrors, too

for root, root_schema in SCHEMAS.items():  # each is named in the defaults list of conf/<root>.yaml
    ConfigStore.instance().store(name=f"{root}_schema", node=root_schema)
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


def run(main: Callable[[], None], schema: type) -> None:
    """Runs a `@hydra.main` function as a command-line program: what a person got wrong is one line and a status.

    Args:
        main: the decorated function
        schema: the dataclass of its config: of it are the help, the correction of a misspelt key, and what is taken as
            typed (in a sweep, where commas separate the values, and in its jobs, Hydra's own rules hold)
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    # Hydra prints what goes wrong in its own format, over several lines, with status 1; in this mode it raises.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    gc.set_threshold(100_000)  # what is imported stays; looking through it again and again took a fifth of the time
    logging.raiseExceptions = False  # an output that takes nothing is told once, in the end
    OmegaConf.register_new_resolver(
        "settings", lambda *, _root_: help_template(schema, _root_, program()), replace=True
    )
    ending = _ending(main, schema)
    told = isinstance(ending, TOLD)
    lost = lost_output("\n" if isinstance(ending, OSError) and not told else "")  # an empty line to find out
    if lost is not None and not told:
        ending = lost
    if isinstance(ending, TOLD):
        _refuse(ending, schema)
    if ending is not None:
        raise ending


def _ending(main: Callable[[], None], schema: type) -> Exception | SystemExit | None:
    """Runs it; gives what is to be told of its end, if it was not a good one."""
    try:
        sys.argv[1:] = _settled_options(sys.argv[1:], may_sweep=schema is TrainScriptConfig)
        if "-m" not in sys.argv and not {HANDED_OVER, IN_SWEEP} & os.environ.keys():
            sys.argv[1:] = as_typed(sys.argv[1:], schema)
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

    others = [word for word in arguments if word not in ("-m", "--multirun")]
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
    if options.experimental_rerun is not None:
        raise InputError(
            "cli.rerun", "--experimental-rerun reads a pickled job, and pickles can run anything: use resume=RUN"
        )
    if options.shell_completion and not {"install", "uninstall", "query"} & {w.partition("=")[0] for w in others}:
        raise InputError("cli.usage", "--shell-completion does not say what to do: add install=bash or uninstall=bash")
    return ["-m", *others] if sweeps else others


def as_typed(words: list[str], schema: type) -> list[str]:
    """The words with what is to be taken as typed in Hydra's quotes; null, and a list where there can be one, stay."""
    verbatim = {key: field for key, field in settings(schema) if field.metadata["verbatim"]}
    quoted_words = []
    for word in words:
        key, _, value = word.partition("=")
        stays = key not in verbatim or value == "null"
        if not stays and verbatim[key].type not in (str, Optional[str]):
            stays = re.fullmatch(r"\[.*\]", value, re.DOTALL) is not None
        quoted_words.append(word if stays else f"{key}={quoted(value)}")
    return quoted_words


class _Refused(BaseException):
    """Carries a job's refusal past Hydra, which handles only `Exception`."""


def _refuse(error: Exception, schema: type) -> NoReturn:
    refusal = error if isinstance(error, RunError) else _in_our_words(error, schema)
    print(refusal.line(program()), file=sys.stderr)
    raise SystemExit(refusal.exit_status)


def _in_our_words(error: Exception, schema: type) -> InputError:
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


def _of_a_key(error: OmegaConfBaseException, schema: type) -> InputError:
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


def _unknown_key(key: str, schema: type) -> InputError:
    keys = [known for known, _ in settings(schema)]
    groups = sorted({known.rpartition(".")[0] for known in keys} - {""})
    close = difflib.get_close_matches(key, keys + groups, n=1)
    same_name = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = close or same_name
    advice = f"did you mean {hint[0]}?" if hint else "--help lists the keys and groups"
    return InputError("config.unknown_key", f"there is no config key {key}: {advice}")
