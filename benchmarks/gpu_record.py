"""What gpu.py has measured so far: a JSON file that is written whole after every figure."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from json_files import read_json, write_json

DONE, INTERRUPTED, FAILED, SKIPPED, NOT_STARTED = "done", "interrupted", "failed", "skipped", "not started"


class OtherMachineError(Exception):
    """The file holds the figures of another machine."""


@dataclass
class Record:
    """The file.

    Args:
        path: where it lies
        machine: what was measured on, and by which versions
        parts: by name, `status`, `seconds`, `reason` and `result`
    """

    path: Path
    machine: dict[str, Any]
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, machine: dict[str, Any]) -> "Record":
        """Continues the file, if there is one.

        Raises:
            OtherMachineError: it is of another machine, or of a dry run
        """
        record = cls(path, machine)
        if path.is_file():
            earlier = read_json(path)
            for key in ("gpu", "torch", "dry"):
                if earlier["machine"][key] != machine[key]:
                    raise OtherMachineError(
                        f"{path} was measured with {key}={earlier['machine'][key]}: choose another --out"
                    )
            record.parts = earlier["parts"]
        return record

    def is_done(self, name: str) -> bool:
        """Whether a part need not be measured again."""
        return self.status(name) == DONE

    def status(self, name: str) -> str:
        """The status of a part."""
        return str(self.parts.get(name, {}).get("status", NOT_STARTED))

    def result(self, name: str) -> dict[str, Any]:
        """The figures of a part; none where it has none."""
        result: dict[str, Any] = self.parts.get(name, {}).get("result", {})
        return result

    def note(self, name: str, status: str, seconds: float, reason: str, result: dict[str, Any]) -> None:
        """Records the status and result of a part; without a new result the one of an earlier try stays."""
        kept = result or self.result(name)
        self.parts[name] = {"status": status, "seconds": round(seconds, 1), "reason": reason, "result": kept}
        write_json(self.path, {"machine": self.machine, "parts": self.parts})
