"""Errors of Hydra and OmegaConf in one line each: a misspelt key, a missing value, a choice that is none."""

import difflib
import re

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import settings


def in_our_words(error: Exception, schema: type | None) -> InputError:
    """What Hydra and OmegaConf say of a config, in a line and with a code.

    Args:
        error: theirs
        schema: the dataclass of the config, from whose keys a misspelt one is corrected
    """
    if is_no_choice(error):
        message = "a config group was given null or a number: give the name of a choice, as in model=tiny"
        return InputError("config.unknown_choice", message)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if choice.startswith("submitit"):
            message = f"{group}={choice} needs a package that is not installed: pip install 'hp_lightning[slurm]'"
            return InputError("install.missing_extra", message)
        choices = ", ".join(error.options)
        return InputError("config.unknown_choice", f"there is no {group}={choice}: take one of {choices}")
    if isinstance(cause, OmegaConfBaseException):
        return _of_a_key(cause, schema)
    if unmatched := re.match(r"Could not override '([^'@]+)", str(error)):
        return _unknown_key(unmatched[1], schema)
    message = (
        re.sub(r"^\w+Exception: ", "", str(error))
        .partition("Config search path")[0]
        .partition("See https://hydra.cc")[0]
        .strip()
    )
    if isinstance(error, OverrideParseException):
        advice = """quote values that contain commas, brackets, quotes or letters other than a to z: 'key="value"'"""
        return InputError("config.syntax", f"{message}; {advice}")
    return InputError("config.not_composed", message)


def is_no_choice(error: Exception) -> bool:
    """Whether Hydra says by it that a group was given something else than a name."""
    return isinstance(error, ValueError) and str(error).startswith("Config group override")


def _of_a_key(error: OmegaConfBaseException, schema: type | None) -> InputError:
    key, message = error.full_key, str(error).splitlines()[0]
    if isinstance(error, InterpolationResolutionError):
        return InputError("config.interpolation", message if key is None else f"{key}: {message}")
    if isinstance(error, MissingMandatoryValue):
        return InputError("config.missing", f"{key} is not set: give it on the command line, {key}=...")
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        return _unknown_key(str(key or error.key), schema)
    if "not a ListConfig" in message:
        return InputError("config.wrong_type", f"{key} must be a list: {key}=[a,b]")
    if "is not Optional" in message:
        return InputError("config.null", f"{key}=null is invalid: give a value, or leave the key out")
    return InputError("config.wrong_type", f"{key}: {message}")


def _unknown_key(key: str, schema: type | None) -> InputError:
    keys = [known for known, _ in settings(schema)] if schema else []
    groups = sorted({known.rpartition(".")[0] for known in keys} - {""})
    close = difflib.get_close_matches(key, keys + groups, n=1)
    same_name = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = close or same_name
    advice = f"did you mean {hint[0]}?" if hint else "--help lists the keys and groups"
    return InputError("config.unknown_key", f"there is no config key {key}: {advice}")
