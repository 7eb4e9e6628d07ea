"""What of a config says how a run learned, under the names in which it is typed on the command line."""

from typing import Any

# Where a file is or how a run was begun says nothing about how it learned.
NO_HYPERPARAMETERS = ("run_dir", "resume", "logger", "checkpoint")


def hyperparameters(plain: dict[str, Any]) -> dict[str, Any]:
    """The leaves of a config, as `config.to_plain` gives it, by their dotted keys."""
    return _leaves({key: value for key, value in plain.items() if key not in NO_HYPERPARAMETERS})


def _leaves(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found.update(_leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found
