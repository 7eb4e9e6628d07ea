"""benchmarks/gpu.sh in miniature: interrupted, continued, and what the results page makes of its figures."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import PROJECT, environment

sys.path.append(str(PROJECT / "benchmarks"))

import gpu_report
import gpu_wheels
from gpu import Record, measure
from gpu_parts import DRY, FULL, PARTS, Bench, Figures, PartError, gpt2

NAMES = [part.__name__ for part in PARTS]


def started(out: Path) -> subprocess.Popen[str]:
    """A dry run, from a folder that is not the project's."""
    command = [str(PROJECT / "benchmarks" / "gpu.sh"), "60", "--dry", "--out", str(out)]
    env = environment(PYTHON=sys.executable, PYTHONPATH="", TMPDIR=str(out))
    return subprocess.Popen(command, cwd=out, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def parts_of(out: Path) -> dict[str, Any]:
    path = out / "gpu.json"
    return json.loads(path.read_text())["parts"] if path.is_file() else {}


@pytest.mark.slow
def test_an_interrupted_dry_run_continues(tmp_path: Path) -> None:
    process = started(tmp_path)
    try:
        deadline = time.monotonic() + 300
        while parts_of(tmp_path).get("startup", {}).get("problem") != gpu_report.DONE:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    first = parts_of(tmp_path)
    table = printed.rpartition("…")[2]
    assert "import lightning" in table
    assert table.count("not started") >= len(NAMES) - 2

    process = started(tmp_path)
    try:
        printed, _ = process.communicate(timeout=1200)
    finally:
        process.kill()
    parts = parts_of(tmp_path)
    assert {name: parts[name]["problem"] for name in parts if parts[name]["problem"]} == {}
    assert list(parts) == NAMES
    assert process.returncode == 0, printed
    assert parts["startup"] == first["startup"], "not done again"
    assert parts["smoke"]["result"]["largest_difference"] == 0, "on a processor resumed to the bit"
    assert {path.name for path in tmp_path.iterdir()} == {"gpu.json", "gpu.log"}, "checkpoints are large"

    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\nText.\n")
    for _ in range(2):
        gpu_report.write_section(page, tmp_path / "gpu.json")
    text = page.read_text()
    assert text.startswith("# Results\n\nText.\n\n## On a GPU\n")
    assert text.count("## On a GPU") == 1
    assert all(line.count("|") == 4 for line in text.splitlines() if line.startswith("|"))
    for row in ("killed and resumed", "tests marked gpu", "verse to", "a step's time", "Kneser-Ney", "generation"):
        assert row in printed.rpartition("…")[2]
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
        "operators": {"gemm": "60%"},
    }
    seed = {"seed": "1", "steps": 350, "train_seconds": 5.0, "command_seconds": 15.0, "best_loss": 1.45}
    speeds = {"ours": 100.0, "ours, float32": 600.0, "transformers": 200.0}
    return {
        "verse": {"problem": "", "result": {"loss": 1.4697, "seeds": [seed, {**seed, "train_seconds": None}]}},
        "gpt2": {"problem": "cut off", "result": gpt2},
        "generation": {"problem": "", "result": {"shapes": {"gpt2": {"1": speeds}}}},
        "million_words": {"problem": "status 1", "result": {}},
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
        "≥ 50%: missed", "> 1: met", "", "≤ 7 s: met", "≤ 7 s: missed", "≥ 3: met",
    ]  # fmt: skip
    assert "49.7% of the matrix product's rate (780 TFLOP/s), 20.0 GiB" in rows[0]
    assert "1.12 times its 400,000 tokens/s" in rows[1]
    assert gpu_report.section(tmp_path / "none.json") == []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, tmp_path / "log", os.environ, DRY, deadline=time.monotonic() + 60)


def test_figures_of_another_machine_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    here = {"gpu": "NVIDIA H200", "driver": "580", "cores": 16, "torch": "2.11", "versions": {}, "date": "today"}
    path.write_text(json.dumps({"machine": here, "parts": {"startup": {"problem": ""}}}))
    assert Record.open(path, {**here, "date": "later"}).parts == {"startup": {"problem": ""}}
    with pytest.raises(SystemExit, match="is of NVIDIA H200"):
        Record.open(path, {**here, "gpu": "NVIDIA H100"})


def test_each_part_has_its_limit_and_keeps_what_it_came_to(tmp_path: Path, bench: Bench) -> None:
    given: list[float] = []

    def whole(bench: Bench) -> Iterator[Figures]:
        given.append(bench.deadline - time.monotonic())
        yield {"a": 1}

    def broken(bench: Bench) -> Iterator[Figures]:
        given.append(bench.deadline - time.monotonic())
        yield {"b": len(given)}
        raise PartError("status 1")

    record = Record(tmp_path / "gpu.json", {}, {"broken": {"problem": "interrupted", "result": {"b": 0, "c": 3}}})
    measure(record, {whole: 20, broken: 900}, bench, time.monotonic() + 200)
    assert given == [pytest.approx(20, abs=1), pytest.approx(200, abs=1)]
    assert parts_of(tmp_path) == record.parts
    assert record.parts["whole"]["problem"] == gpu_report.DONE
    assert (record.parts["broken"]["problem"], record.parts["broken"]["result"]) == ("status 1", {"b": 2, "c": 3})
    measure(record, {whole: 20, broken: 900}, bench, time.monotonic())
    assert len(given) == 2, "done, or too late"


def test_our_speed_is_kept_where_nanogpt_fails(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = "----  -----------\nName  Self CUDA %\n----  -----------\ngemm        60.0%\nSelf CPU time total: 1 s\n"

    def throughput(bench: Bench, script: str, *arguments: str) -> None:
        figures = {"gpt2": {"contenders": {"ours": {"tokens_per_second": 1.0, "profile": profile}}}}
        Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(figures))
        raise PartError("nanogpt failed")

    monkeypatch.setattr(Bench, "benchmark", throughput)
    record = Record(tmp_path / "gpu.json", {})
    measure(record, {gpt2: 20}, bench, time.monotonic() + 20)
    assert record.parts["gpt2"]["problem"] == "nanogpt failed"
    figures = {"contenders": {"ours": {"tokens_per_second": 1.0}}, "operators": {"gemm": "60.0%"}}
    assert record.parts["gpt2"]["result"] == figures


@pytest.mark.parametrize("settings", [FULL.verse, FULL.verse_best, FULL.words])
def test_the_settings_for_a_gpu_are_settings(settings: tuple[str, ...], make_config: Callable[..., Any]) -> None:
    experiment = [] if settings == FULL.words else ["experiment=shakespeare_char_gpu", *FULL.verse_net]
    cfg = make_config(*experiment, "data.path=x.csv", *settings, *FULL.train)
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("gpu", "bf16-mixed")


def test_a_program_has_a_limit_and_leaves_nothing_running(tmp_path: Path, bench: Bench) -> None:
    child = tmp_path / "child"
    shell = ["sh", "-c", f"sleep 600 & echo $! > {child}; echo said; wait"]
    bench.deadline = time.monotonic() + 0.5
    with pytest.raises(PartError, match="cut off after"):
        bench.run(shell)
    assert has_ended(int(child.read_text()))
    child.unlink()
    bench.deadline += 60
    assert "said" in bench.run(shell, until=child).output
    with pytest.raises(PartError, match="status 3: what went wrong"):
        bench.run(["sh", "-c", "echo what went wrong; exit 3"])
    with pytest.raises(PartError, match="status 1"):
        bench.run(["sh", "-c", "exit 1"], until=tmp_path / "never")
    assert bench.run(["sh", "-c", "exit 1"], statuses=(0, 1)).output == ""


def has_ended(process: int) -> bool:
    """Whether a process has within some seconds."""
    for _ in range(100):
        stat = Path(f"/proc/{process}/stat")
        if not stat.exists() or " Z " in stat.read_text():
            return True
        time.sleep(0.05)
    return False


def test_what_is_missing_is_unpacked_from_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").touch()
    for name in ("not_here", "torch"):
        wheel = tmp_path / f"{name}-1.0-py3-none-any.whl"
        subprocess.run([sys.executable, "-m", "zipfile", "-c", wheel, "package"], cwd=tmp_path, check=True)
    assert gpu_wheels.unpack_missing(tmp_path, tmp_path / "site") == ["not_here"]
    assert (tmp_path / "site" / "package" / "module.py").is_file()
