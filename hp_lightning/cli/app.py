"""What the commands share: the config schemas made known, and every refusal told in one line."""

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
from hydra.conf import HydraConf, RunDir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hp_lightning.cli.help import help_template
from hp_lightning.common.command_line import IN_SWEEP
from hp_lightning.common.console import lost_output
from hp_lightning.common.errors import InputError, Interrupted, RunError, reason
from hp_lightning.common.files import bundled
from hp_lightning.common.hydra_grammar import quoted
from hp_lightning.schema.checks import settings
from hp_lightning.schema.compose import store_schema
from hp_lightning.schema.config_errors import in_our_words, is_no_choice
from hp_lightning.schema.train import TrainScriptConfig

command: str | None = None  # the word after hp-lightning; None in train.py and generate.py

TOLD = (HydraException, OmegaConfBaseException, RunError)  # in one line; some of Hydra's are OSErrors, too


def hydra_main(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """`@hydra.main` with the config of that name in `conf/`; an expected end of the job is told by `run` alone."""

    def decorator(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        store_schema(config_name)
        decorated: Callable[[], None] = hydra.main(
            version_base="1.3", config_path=str(bundled("conf")), config_name=config_name
        )(job(task))
        return decorated

    return decorator


def job(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Wrap what `@hydra.main` calls, for `run` alone to tell an expected end of the job.

    Hydra adds a line of its own about an `Exception` that leaves a job. In a sweep that is wanted: its launchers note
    it, and start the next job.
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


def run(main: Callable[[], None], schema: type | None) -> None:
    """Run a function as a command-line program: what a person got wrong is one line and a status.

    Args:
        main: a function that `hydra_main` has decorated; or one that reads the words itself
        schema: the dataclass of its config: of it are the help, the correction of a misspelt key, and what is taken as
            typed (in a sweep, where commas separate the values, and in its jobs, Hydra's own rules hold); None without
            Hydra
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    # Hydra prints what goes wrong in its own format, over several lines, with status 1; in this mode it raises.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    gc.set_threshold(100_000)  # what is imported stays; looking through it again and again took a fifth of the time
    logging.raiseExceptions = False  # an output that takes nothing is told once, in the end
    ending = _ending(main, schema)
    told = isinstance(ending, TOLD)
    lost = lost_output("\n" if isinstance(ending, OSError) and not told else "")  # an empty line to find out
    if lost is not None and not told:
        ending = lost
    if isinstance(ending, TOLD):
        _refuse(ending, schema)
    if ending is not None:
        raise ending


def _ending(main: Callable[[], None], schema: type | None) -> Exception | SystemExit | None:
    """Run it; return what is to be told of its end, if it was not a good one."""
    try:
        if schema is not None:
            _set_up_hydra(schema)
            sys.argv[1:] = _settled_options(sys.argv[1:], may_sweep=schema is TrainScriptConfig)
            if "-m" not in sys.argv and IN_SWEEP not in os.environ:
                sys.argv[1:] = as_typed(sys.argv[1:], schema)
        main()
    except _Refused as refused:
        assert isinstance(refused.__cause__, Exception)
        return refused.__cause__
    except (*TOLD, OSError, SystemExit) as end:
        return end
    except (YAMLError, UnicodeDecodeError) as error:
        if HydraConfig.initialized():  # not while it is composed
            raise
        return InputError("config.not_yaml", f"a config file is not valid YAML: {reason(error)}")
    except ValueError as error:
        if not is_no_choice(error):
            raise
        return in_our_words(error, schema)
    except KeyboardInterrupt:
        return Interrupted("cli.interrupted", "stopped by SIGINT", signal.SIGINT)
    return None


def _set_up_hydra(schema: type) -> None:
    """What is Hydra's own in every command; an experiment or the command line may still override it.

    It logs nothing and makes no folder: hp_lightning makes a run's folder itself, after the config and the corpus have
    been checked: a refused run leaves nothing behind, and resuming never overwrites what it resumes.
    """
    chosen = {"help": "settings", "launcher": "processes", "sweeper": "grid", "job_logging": "none", "callbacks": None}
    unchanged = dict.fromkeys(("output", "hydra_help", "hydra_logging", "env"), "default")
    defaults = [{group: choice} for group, choice in {**unchanged, **chosen}.items()]
    node = HydraConf(defaults=[*defaults, "_self_"], run=RunDir(dir="."), output_subdir=None)
    ConfigStore.instance().store(group="hydra", name="config", node=node)
    OmegaConf.register_new_resolver(
        "settings", lambda *, _root_: help_template(schema, _root_, program()), replace=True
    )


def _settled_options(arguments: list[str], may_sweep: bool) -> list[str]:
    """The words with Hydra's options before all others; its own parser answers nonsense with its whole usage.

    Raises:
        InputError: there are options that it does not know, or that exclude each other
    """

    def refuse(message: str) -> NoReturn:
        raise InputError("cli.usage", f"{message}: settings are given as key=value; --help lists the keys")

    others = [word for word in arguments if word not in ("-m", "--multirun", "hydra.mode=MULTIRUN")]
    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = refuse  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(others)
    for word in options.overrides:  # Hydra takes them behind its options alone
        others.remove(word)
    others += options.overrides
    sweeps = options.multirun or len(others) < len(arguments)
    if sweeps and not may_sweep:
        raise InputError("cli.no_sweeps", "-m starts a sweep, and only hp-lightning train has sweeps: leave it out")
    if sum((sweeps, options.run, bool(options.cfg), options.info is not None, options.shell_completion)) > 1:
        raise InputError(
            "cli.exclusive",
            "-m, --run, --cfg, --info and --shell-completion are mutually exclusive: give one",
        )
    if options.resolve and options.cfg is None and not options.help:
        refuse("--resolve goes with --cfg")
    if options.experimental_rerun is not None:
        raise InputError(
            "cli.rerun", "--experimental-rerun reads a pickled job, and pickles can run anything: use resume=RUN"
        )
    asks = {"install=bash", "uninstall=bash", *(["query=bash"] if "COMP_LINE" in os.environ else [])}
    if options.shell_completion and not asks & set(others):
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


def _refuse(error: Exception, schema: type | None) -> NoReturn:
    refusal = error if isinstance(error, RunError) else in_our_words(error, schema)
    print(refusal.line(program()), file=sys.stderr)
    raise SystemExit(refusal.exit_status)
