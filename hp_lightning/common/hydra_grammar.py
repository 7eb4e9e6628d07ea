"""Words of a command line in the grammar of Hydra's overrides, and the name that they give a run."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SLUG_LENGTH = 40
# Overrides that say where a run lies or how long it goes, not what it is.
UNNAMED_KEYS = {"run_dir", "resume", "max_steps", "max_epochs"}


def key_and_value(override: str) -> tuple[str, str]:
    """The key of an override, or the config group, and what stands after it."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def typed(value: Any) -> str:
    """A value as a person would type it: null, true, [a,b]."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, str):
        return value if value.strip() else f'"{value}"'
    return "null" if value is None else str(value).lower()


def without_interpolation(text: str) -> str:
    """The text, in which OmegaConf sees no interpolation any more: ${ is what somebody typed."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def quoted(value: str) -> str:
    """The value as a string in Hydra's grammar, whatever is in it."""
    value = without_interpolation(value)
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), value)
    return f"'{escaped}'"


def slug(overrides: Iterable[str]) -> str:
    """A short folder name that tells runs apart: ["model=small", "optim.lr=0.01"] gives "small_lr0.01".

    A name that would grow beyond `SLUG_LENGTH` is cut and ends in a hash of all the overrides.
    """
    overrides = [override for override in overrides if key_and_value(override)[0] not in UNNAMED_KEYS]
    words = []
    for override in overrides:
        key, value = key_and_value(override)
        value = Path(value).stem if "/" in value else value
        words.append(key.rpartition(".")[2] + value if _needs_name(key) else value)
    name = re.sub(r"[^\w.-]+", "-", "_".join(words), flags=re.ASCII).strip("-_.")
    if len(name) > SLUG_LENGTH:
        name = f"{name[: SLUG_LENGTH - 9]}-{hashlib.sha256(' '.join(overrides).encode()).hexdigest()[:8]}"
    return name or "default"


def _needs_name(key: str) -> bool:
    """Whether a value says little without its key: "0.1" does, the choice of a group or the name of a file does not."""
    return ("." in key and key != "data.path") or key == "seed"
