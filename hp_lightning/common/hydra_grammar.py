"""Words of a command line in the grammar of Hydra's overrides."""

import re


def parted(override: str) -> tuple[str, str]:
    """The key of an override, or the config group, and what stands after it."""
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def quoted(value: str) -> str:
    """The value as a string in Hydra's grammar, whatever is in it."""
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), value)
    return f"'{escaped}'"
