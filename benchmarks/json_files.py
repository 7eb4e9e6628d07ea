"""JSON files that are whole at any time: what reads or continues them later never finds half of one."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes the file, or leaves the one before as it was."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
