"""What the project does on a GPU, measured within a number of minutes; a second call does the rest.

    benchmarks/gpu.sh --collect DIR                     # where there is a network: the wheels of what may be missing
    benchmarks/gpu.sh 8 --wheels DIR --data DIR --nanogpt DIR --out DIR
    benchmarks/gpu.sh --dry                             # every part in miniature on the processor

Needs Python, PyTorch and the compiled ones of the packages that the project needs. What else is missing is unpacked
from the wheels, which are of the packages of the Python that collected them (PYTHON=.venv/bin/python); the project
itself is only put on the path. The parts stand in gpu_parts.py in order of worth; each has a limit, and its figures are
in `gpu.json` of --out as soon as they are known. `python benchmarks/gpu_report.py` puts docs/gpu.json onto
docs/RESULTS.md.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpu_parts import DRY, FULL, PARTS, Bench, Figures, Part, PartError
from gpu_report import DONE, described, table
from gpu_wheels import collect, unpack_missing
from json_files import write_json
from throughput_shapes import PROJECT

PACKAGES = ("torch", "triton", "lightning", "hydra-core", "transformers", "numpy")


@dataclass(frozen=True)
class Record:
    """What has been measured so far: by part; the file is written whole after every figure."""

    path: Path
    machine: Figures
    parts: dict[str, Figures] = field(default_factory=dict)  # each with its `problem`, its `seconds` and its `result`

    @classmethod
    def open(cls, path: Path, machine: Figures) -> "Record":
        """Continues the file, if there is one; it must be of the same machine."""
        record = cls(path, machine)
        if path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            if any(earlier["machine"][key] != machine[key] for key in ("gpu", "torch")):
                raise SystemExit(f"{path} is of {described(earlier['machine'])}: choose another --out")
            record.parts.update(earlier["parts"])
        return record

    def _write(self) -> None:
        write_json(self.path, {"machine": self.machine, "parts": self.parts})

    def is_done(self, part: Part) -> bool:
        """Whether it need not be measured again."""
        return bool(self.parts.get(part.__name__, {}).get("problem") == DONE)

    def measure(self, part: Part, bench: Bench) -> None:
        """Runs a part; what it does not come to is as an earlier try has left it."""
        begin, name = time.monotonic(), part.__name__
        entry = {"result": {}, **self.parts.get(name, {}), "problem": "interrupted"}
        self.parts[name] = entry
        print(f"{name} …", flush=True)
        try:
            for figures in part(bench):
                entry["result"].update(figures)
                self._write()
            entry["problem"] = DONE
        except PartError as error:
            entry["problem"] = str(error)
        except Exception as error:  # a program left something unexpected behind: the other parts may still work
            entry["problem"] = f"{type(error).__name__}: {error}"
        finally:
            entry["seconds"] = round(time.monotonic() - begin, 1)
            self._write()


def main() -> int:
    """Measures what is missing; status 0 if every part is done."""
    begin = time.monotonic()
    arguments = _arguments()
    if arguments.collect is not None:
        collect(arguments.collect)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with _work_folder() as work:
        site = work / "site"
        sys.path.insert(0, str(site))  # for the versions
        if arguments.wheels is not None:
            print("unpacked:", *unpack_missing(arguments.wheels, site))
        machine = _machine(arguments.dry)
        print(described(machine), flush=True)
        record = Record.open(arguments.out / "gpu.json", machine)
        scale, log = DRY if arguments.dry else FULL, arguments.out / "gpu.log"
        bench = Bench(work, log, _environment(work), scale, arguments.data, arguments.nanogpt)
        try:
            measure(record, PARTS, bench, begin + 60 * arguments.minutes)
        finally:
            print(f"\n{table(record.parts)}\n\n{record.path}\n{log}", flush=True)
    if all(map(record.is_done, PARTS)):
        return 0
    print("to continue, run the same command again")
    return 1


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A temporary folder; compilers that a run has started end a moment after it, and write into it until then."""
    work = Path(tempfile.mkdtemp(prefix="gpu_"))
    try:
        yield work
    finally:
        for _ in range(20):
            shutil.rmtree(work, ignore_errors=True)
            time.sleep(0.1)


def measure(record: Record, parts: dict[Part, float], bench: Bench, deadline: float) -> None:
    """Runs the parts that are not done, each within its limit."""
    for part, limit in parts.items():
        left = deadline - time.monotonic()
        if left > 0 and not record.is_done(part):
            bench.deadline = time.monotonic() + min(left, limit)
            record.measure(part, bench)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, nargs="?", default=8.0, help="in which all should be done, 8 by default")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for gpu.json and gpu.log; outputs/gpu by default")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels, as --collect has left them")
    parser.add_argument("--data", type=Path, metavar="DIR", help="has tinyshakespeare.csv and novels.csv")
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--collect", type=Path, metavar="DIR", help="collect wheels there, measure nothing")
    parser.add_argument("--dry", action="store_true", help="every part in miniature on the processor")
    arguments = parser.parse_args()
    arguments.out = (arguments.out or PROJECT / "outputs" / ("gpu_dry" if arguments.dry else "gpu")).resolve()
    for name in ("data", "wheels", "nanogpt"):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name} {folder} is no folder")
        setattr(arguments, name, folder and folder.resolve())
    return arguments


def _environment(work: Path) -> dict[str, str]:
    """The project on the path, caches and temporary files in the folder of the work."""
    paths = [str(PROJECT), str(work / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": str(work / "cache"),
        "TMPDIR": str(work),
        "COLUMNS": "120",
    }


def _machine(dry: bool) -> Figures:
    """What is measured on; PyTorch is not asked, since it would keep some of the GPU's memory."""
    gpu, driver = None, None
    if not dry:
        if shutil.which("nvidia-smi") is None:
            raise SystemExit("there is no NVIDIA GPU; --dry runs every part in miniature on the processor")
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
        gpu, driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    versions = {"Python": sys.version.split()[0]}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "gpu": gpu,
        "driver": driver,
        "cores": os.cpu_count(),
        "torch": versions.get("torch"),
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    sys.exit(main())
