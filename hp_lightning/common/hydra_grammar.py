"""Words of a command line in the grammar of Hydra's overrides."""

import re
from typing import Any


def parted(override: str) -> tuple[str, str]:
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


def quoted(value: str) -> str:
    """The value as a string in Hydra's grammar, whatever is in it."""
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), value)
    return f"'{escaped}'"
