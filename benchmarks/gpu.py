"""What the project does on a GPU, in order of worth, within a number of minutes; a second call does the rest.

    benchmarks/gpu.sh --collect DIR                     # where there is a network: the wheels of what may be missing
    benchmarks/gpu.sh 8 --wheels DIR --data DIR --nanogpt DIR --out DIR
    benchmarks/gpu.sh --dry                             # every part in miniature on the processor

Needs Python and PyTorch; what else the project needs and this Python lacks is installed from the wheels into a folder
of its own, the project itself is only put on the path. Each part has a limit, and its figures are in `gpu.json` of
--out as soon as they are known. Parts that no longer fit are not started; the training on a million words takes the
time that is left, 3 minutes at most. `python benchmarks/gpu_report.py` puts docs/gpu.json onto docs/RESULTS.md.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from gpu_parts import PARTS, AbsentError, Folders, Part, Session
from gpu_programs import ProgramError, Programs
from gpu_record import DONE, FAILED, INTERRUPTED, NOT_STARTED, SKIPPED, OtherMachineError, Record
from gpu_report import described, table
from gpu_scale import DRY, FULL, Scale
from gpu_wheels import collect, install_missing, still_missing
from throughput_shapes import PROJECT

PACKAGES = ("torch", "triton", "lightning", "pytorch-lightning", "hydra-core", "transformers", "numpy")
ABOUT_TORCH = """
import json, torch
gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
print(json.dumps({"gpu": gpu, "cuda": torch.version.cuda}))
"""


class Stopped(BaseException):
    """A signal has come."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def main() -> int:
    """Measures what is missing; status 0 if every part is done."""
    begin = time.monotonic()
    arguments = _arguments()
    if arguments.collect is not None:
        collect(arguments.collect)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _stop)
    status = 0
    bench = _bench(arguments)
    print(described(bench.record.machine), flush=True)
    try:
        bench.measure(PARTS, begin + 60 * arguments.minutes)
    except Stopped as stopped:
        status = 128 + stopped.number
    print(f"\n{table(bench.record.parts)}\n\n{bench.record.path}\n{bench.programs.log}")
    if status == 0 and not all(bench.record.is_done(part.name) for part in PARTS):
        print("to continue, run the same command again")
        status = 1
    return status


@dataclass(frozen=True)
class Bench:
    """All that the parts need."""

    programs: Programs
    folders: Folders
    scale: Scale
    record: Record

    def measure(self, parts: Sequence[Part], deadline: float) -> None:
        """Runs the parts that are not done, in this order, except those that no longer fit."""
        waiting = [part for part in parts if not self.record.is_done(part.name)]
        for place, part in enumerate(waiting):
            left = deadline - time.monotonic()
            if part.elastic:
                left = max(left - sum(later.least for later in waiting[place + 1 :]), min(left, part.least))
            seconds = min(left, part.most)
            session = Session(self.programs, self.folders, self.scale, self.record, part.name, seconds)
            if left < (0 if self.scale is DRY else part.least):
                session.end(NOT_STARTED, f"needs {part.least:.0f} s, {max(left, 0):.0f} s left")
            else:
                _measure(part, session)


def _measure(part: Part, session: Session) -> None:
    """Runs a part and records its status."""
    print(f"{part.name} …", flush=True)
    status, reason = DONE, ""
    try:
        part.measure(session)
    except AbsentError as error:
        status, reason = SKIPPED, str(error)
    except ProgramError as error:
        status, reason = FAILED, str(error)
    except Exception as error:  # a program left something unexpected behind: the other parts may still work
        status, reason = FAILED, f"{type(error).__name__}: {error}"
    except Stopped as stopped:
        status, reason = INTERRUPTED, str(stopped)
        raise
    finally:
        session.end(status, reason)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    outputs = PROJECT / "outputs"
    parser.add_argument("minutes", type=float, nargs="?", default=8.0, help="in which all should be done, 8 by default")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for gpu.json and gpu.log; outputs/gpu by default")
    parser.add_argument("--work", type=Path, default=outputs / "gpu_work", metavar="DIR", help="for caches and runs")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels, as --collect has left them")
    parser.add_argument("--data", type=Path, metavar="DIR", help="has tinyshakespeare.csv and novels.csv")
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--collect", type=Path, metavar="DIR", help="collect wheels there, measure nothing")
    parser.add_argument("--dry", action="store_true", help="every part in miniature on the processor")
    arguments = parser.parse_args()
    arguments.out = arguments.out or outputs / ("gpu_dry" if arguments.dry else "gpu")
    for name in ("data", "wheels", "nanogpt"):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name} {folder} is no folder")
        setattr(arguments, name, folder and folder.resolve())
    return arguments


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)


def _bench(arguments: argparse.Namespace) -> Bench:
    out, work = arguments.out.resolve(), arguments.work.resolve()
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    site = work / "site"
    sys.path.insert(0, str(site))
    if arguments.wheels is not None and (names := install_missing(arguments.wheels, site)):
        print(f"installed from wheels: {', '.join(names)}")
    if missing := still_missing():
        print(f"missing, and without a wheel: {', '.join(missing)}")
    machine = _machine(arguments.dry)
    if machine["gpu"] is None and not arguments.dry:
        raise SystemExit("there is no GPU that PyTorch can use; --dry runs every part in miniature on the processor")
    try:
        record = Record.open(out / "gpu.json", machine)
    except OtherMachineError as error:
        raise SystemExit(str(error)) from error
    programs = Programs(out / "gpu.log", _environment(work, site), PROJECT)
    folders = Folders(work, arguments.data, arguments.nanogpt)
    return Bench(programs, folders, DRY if arguments.dry else FULL, record)


def _environment(work: Path, site: Path) -> dict[str, str]:
    """The project on the path, its caches in the folder of the work."""
    paths = [str(PROJECT), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": str(work / "cache"),
        "COLUMNS": "120",
    }


def _machine(dry: bool) -> dict[str, Any]:
    """What is measured on."""
    about = subprocess.run([sys.executable, "-c", ABOUT_TORCH], capture_output=True, text=True, check=False)
    if about.returncode:
        raise SystemExit(f"{sys.executable} cannot import torch: {about.stderr.strip().splitlines()[-1]}")
    torch = json.loads(about.stdout)
    versions = {"Python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}, "CUDA": torch["cuda"]}
    return {
        "gpu": None if dry else torch["gpu"],
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "cores": os.cpu_count(),
        "versions": {name: version for name, version in versions.items() if version},
        "torch": versions["torch"],
        "commit": _output("git", "-C", str(PROJECT), "rev-parse", "--short", "HEAD"),
        "date": datetime.now(UTC).date().isoformat(),
        "dry": dry,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
