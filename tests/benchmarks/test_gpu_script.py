"""benchmarks/gpu.sh in miniature: interrupted, continued, and what the results page makes of its figures."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import PROJECT, environment

sys.path.append(str(PROJECT / "benchmarks"))

import gpu_memory
import gpu_report
import gpu_wheels
from gpu import Bench
from gpu_parts import PARTS, Folders, Part, Session
from gpu_programs import ProgramError, Programs
from gpu_record import OtherMachineError, Record
from gpu_scale import FULL

NAMES = [part.name for part in PARTS]


def started(out: Path) -> subprocess.Popen[str]:
    """A dry run, from a folder that is not the project's."""
    command = [str(PROJECT / "benchmarks" / "gpu.sh"), "60", "--dry", "--out", str(out), "--work", str(out / "work")]
    env = environment(PYTHON=sys.executable, PYTHONPATH="")
    return subprocess.Popen(command, cwd=out, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def parts_of(out: Path) -> dict[str, Any]:
    path = out / "gpu.json"
    return json.loads(path.read_text())["parts"] if path.is_file() else {}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a dry run that was ended once its second part was done, and what it printed."""
    out = tmp_path_factory.mktemp("gpu")
    process = started(out)
    try:
        deadline = time.monotonic() + 300
        while parts_of(out).get(NAMES[1], {}).get("status") != "done":
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    return out, printed


@pytest.mark.slow
def test_an_interrupted_dry_run_continues(interrupted: tuple[Path, str]) -> None:
    out, printed = interrupted
    first = parts_of(out)
    assert [name for name in first if first[name]["status"] == "done"] == NAMES[:2]
    assert "experiment=smoke" in printed.rpartition("…")[2], "the table of what was measured"
    assert printed.count("not started") >= len(NAMES) - 3

    process = started(out)
    try:
        printed, _ = process.communicate(timeout=1200)
    finally:
        process.kill()
    parts = parts_of(out)
    assert {name: parts[name]["reason"] for name in parts if parts[name]["status"] != "done"} == {}
    assert list(parts) == NAMES
    assert process.returncode == 0, printed
    assert {name: parts[name] for name in NAMES[:2]} == {name: first[name] for name in NAMES[:2]}, "not done again"
    table = printed.rpartition("…")[2]
    for row in ("killed and resumed", "verse to", "Kneser-Ney", "generation", "profile of a step"):
        assert row in table
    assert not list((out / "work" / "runs").iterdir()), "checkpoints are large"
    assert parts["resume"]["result"]["equal"], "on a processor to the bit"

    page = out / "RESULTS.md"
    page.write_text("# Results\n\nText.\n")
    for _ in range(2):
        gpu_report.write_section(page, out / "gpu.json")
    text = page.read_text()
    assert text.startswith("# Results\n\nText.\n\n## On a GPU\n")
    assert text.count("## On a GPU") == 1
    assert all(line.count("|") == 4 for line in text.splitlines() if line.startswith("|"))
    for row in ("verse to", "Kneser-Ney", "generation", "torch", "tests marked gpu"):
        assert row in text


def figures_on_a_gpu() -> dict[str, Any]:
    contender = {"gpu_peak_mb": 20480.0}
    gpt2 = {
        "shape": {"name": "gpt2", "seq_len": 1024, "batch_size": 16},
        "matrix_flops": 7.8e14,
        "contenders": {
            "ours": {"tokens_per_second": 450_000.0, "share": 0.497, **contender},
            "nanogpt": {"tokens_per_second": 400_000.0, "share": 0.44, **contender},
        },
    }
    seed = {"seed": "1", "steps": 350, "train_seconds": 5.0, "command_seconds": 15.0, "best_loss": 1.45}
    speeds = {"ours": 100.0, "ours, float32": 600.0, "transformers": 200.0}
    return {
        "gpt2": {"status": "done", "result": gpt2},
        "verse": {"status": "done", "result": {"loss": 1.4697, "seeds": [seed, {**seed, "train_seconds": None}]}},
        "generation": {"status": "done", "result": {"shapes": {"gpt2": {"1": speeds}}}},
        "profile_gpt2": {"status": "failed", "result": {}},
    }


def test_the_page_has_the_targets_next_to_the_figures(tmp_path: Path) -> None:
    machine = {"gpu": "NVIDIA H200", "driver": "580", "cores": 16, "versions": {"torch": "2.11"}, "date": "2026-12-01"}
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"machine": machine, "parts": figures_on_a_gpu()}))
    heading, about, table = gpu_report.section(path)
    assert heading == "## On a GPU"
    assert "NVIDIA H200, driver 580, 16 cores; torch 2.11; 2026-12-01" in about
    rows = table.splitlines()[2:]
    assert [row.split("|")[3].strip() for row in rows] == [
        "≥ 50%: missed", "> 1: met", "≤ 7 s: met", "≤ 7 s: missed", "≥ 3: met",
    ]  # fmt: skip
    assert "49.7% of the matrix product's rate (780 TFLOP/s), 20.0 GiB" in rows[0]
    assert "1.12 times nanoGPT's 400,000 tokens/s" in rows[1]


def test_no_section_where_nothing_was_measured(tmp_path: Path) -> None:
    assert gpu_report.section(tmp_path / "gpu.json") == []


def test_figures_of_another_machine_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    here = {"gpu": "NVIDIA H200", "torch": "2.11", "dry": False}
    Record.open(path, here).note("startup", "done", 1.0, "", {"help_seconds": 1.0})
    assert Record.open(path, {**here, "date": "later"}).is_done("startup")
    with pytest.raises(OtherMachineError, match="gpu=NVIDIA H200"):
        Record.open(path, {**here, "gpu": "NVIDIA H100"})


def test_a_part_that_fails_keeps_the_figures_of_an_earlier_try(tmp_path: Path) -> None:
    record = Record(tmp_path / "gpu.json", {})
    record.note("verse", "interrupted", 1.0, "", {"loss": 1.4})
    record.note("verse", "failed", 1.0, "status 1", {})
    assert not record.is_done("verse")
    assert record.result("verse") == {"loss": 1.4}


def test_parts_that_do_not_fit_wait_and_an_elastic_one_leaves_room(tmp_path: Path) -> None:
    given: dict[str, float] = {}

    def measured(name: str) -> Callable[[Session], None]:
        def measure(session: Session) -> None:
            given[session.part] = session.seconds

        measure.__name__ = name
        return measure

    sizes = {"first": (10, 20), "long": (900, 900), "elastic": (50, 300), "last": (30, 60)}
    parts = [Part(measured(name), *size, elastic=name == "elastic") for name, size in sizes.items()]
    record = Record(tmp_path / "gpu.json", {})
    bench = Bench(Programs(tmp_path / "log", os.environ, tmp_path), Folders(tmp_path), FULL, record)
    bench.measure(parts, time.monotonic() + 200)
    assert given == {"first": 20, "elastic": pytest.approx(170, abs=1), "last": 60}
    assert record.parts["long"]["reason"] == "needs 900 s, 200 s left"
    given.clear()
    bench.measure(parts, time.monotonic() + 20)
    assert given == {}, "done, or too long"


@pytest.mark.parametrize("settings", [FULL.verse, FULL.verse_best, FULL.words])
def test_the_settings_for_a_gpu_are_settings(settings: tuple[str, ...], make_config: Callable[..., Any]) -> None:
    experiment = [] if settings == FULL.words else ["experiment=shakespeare_char_gpu", *FULL.verse_net]
    cfg = make_config(*experiment, "data.path=x.csv", *settings, *FULL.train)
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("gpu", "bf16-mixed")


def test_memory_is_what_the_driver_says_at_its_highest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\ncat {tmp_path}/used\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gpu_memory, "SECONDS", 0.01)
    with gpu_memory.sampled_peak() as peak:
        for used in (300, 2048, 100):
            (tmp_path / "used").write_text(f"{used}\n")
            time.sleep(0.5)
    assert peak.mb == 2048


def test_a_program_has_a_limit_and_leaves_nothing_running(tmp_path: Path) -> None:
    programs = Programs(tmp_path / "log", os.environ, tmp_path)
    child = tmp_path / "child"
    shell = ["sh", "-c", f"sleep 600 & echo $! > {child}; echo said; wait"]
    with pytest.raises(ProgramError, match="cut off after"):
        programs.run(shell, limit=0.5)
    assert ended(int(child.read_text()))
    with pytest.raises(ProgramError, match="status 3: what went wrong"):
        programs.run(["sh", "-c", "echo what went wrong; exit 3"], limit=60)
    assert programs.run(["sh", "-c", "exit 1"], limit=60, statuses=(0, 1)).output == ""
    assert programs.run(shell, limit=60, kill_when=child.is_file).seconds < 60
    assert "said" in (tmp_path / "log").read_text()


def ended(process: int) -> bool:
    """Whether a process has, or is about to."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            if " Z " in Path(f"/proc/{process}/stat").read_text():
                return True
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.05)
    return False


def test_what_is_carried_is_what_runs_on_any_machine() -> None:
    names = {package.name.lower() for package in gpu_wheels._pure(gpu_wheels._named())}
    assert {"hydra-core", "omegaconf", "antlr4-python3-runtime", "nltk", "platformdirs"} <= names
    assert not {"torch", "numpy", "mypy"} & names
