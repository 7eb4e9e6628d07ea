"""Optuna's side of a sweep: what it proposes, what it gives up, and that a study outlives its process."""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.errors import refused

from hp_lightning.sweeps.job import ELSEWHERE, is_settled
from hp_lightning.sweeps.optuna_search import Search
from hp_lightning.sweeps.plan import Job

SPACE = ["model=tiny", "regularization.dropout=interval(0,0.5)", "optim.lr=tag(log,interval(1e-4,1e-1))"]


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Search]:
    def make(*overrides: str, total: int = 8, preset: dict[str, str] | None = None) -> Search:
        return Search(tmp_path, list(overrides), preset or {}, total, seed=1)

    return make


def validated(job: Job, *losses: float) -> None:
    """As the job's run would, every ten steps."""
    job.folder.mkdir(exist_ok=True)
    rows = "".join(f"{10 * (place + 1)},{loss}\n" for place, loss in enumerate(losses))
    (job.folder / "metrics.csv").write_text("step,val/loss\n" + rows)


def complete(found: Search, job: Job, loss: float) -> str:
    validated(job, loss + 1, loss)
    (job.folder / "summary.json").write_text(json.dumps({"status": "completed", "best/val/loss": loss}))
    assert found.is_wanted(job)
    return found.ended(job, "completed")


def taken(found: Search) -> Job:
    job = found.next()
    assert job is not None
    return job


def test_proposals_lie_in_the_space(search: Callable[..., Search]) -> None:
    found = search(*SPACE, "tokenizer=word,bpe", "model.num_heads=int(interval(1,4))", "model.num_layers=range(2,5)")
    jobs = [taken(found) for _ in range(8)]
    assert found.next() is None, "there are as many as were asked for"
    for number, job in enumerate(jobs):
        given = dict(word.split("=") for word in job.overrides)
        assert given["model"] == "tiny"
        assert 0 <= float(given["regularization.dropout"]) <= 0.5
        assert 1e-4 <= float(given["optim.lr"]) <= 1e-1
        assert given["tokenizer"] in ("word", "bpe")
        assert given["model.num_heads"] in ("1", "2", "3", "4")
        assert given["model.num_layers"] in ("2", "3", "4")
        assert job.name.startswith(f"{number}_")
    rates = [float(dict(word.split("=") for word in job.overrides)["optim.lr"]) for job in jobs]
    assert sum(rate < 10**-2.5 for rate in rates) in range(2, 7), "evenly by its logarithm"


def test_the_preset_is_searched_where_nothing_else_is(search: Callable[..., Search]) -> None:
    preset = {"regularization.dropout": "interval(0.2, 0.3)"}
    assert re.fullmatch(r"regularization\.dropout=0\.2\d*", taken(search("model=tiny", preset=preset)).overrides[1])
    with refused("sweep.nothing_to_search"):
        search("model=tiny")


def test_a_space_with_nothing_in_it_is_refused(search: Callable[..., Search]) -> None:
    for impossible in ("interval(1,0)", "tag(log,interval(0,1))", "interval(nan,1)", "interval(1,inf)"):
        with refused("sweep.empty_range", f"optim.lr={impossible} "):
            search(f"optim.lr={impossible}")
    for empty in ("range(6,2)", "range(2,7,0)"):
        with refused("sweep.empty_range", f"model.num_layers={empty} "):
            search(f"model.num_layers={empty}")


def test_what_was_found_guides_the_search(search: Callable[..., Search]) -> None:
    found = search("regularization.dropout=interval(0,1)", total=40)
    rates = []
    while (job := found.next()) is not None:
        rates.append(float(job.overrides[0].partition("=")[2]))
        complete(found, job, (rates[-1] - 0.3) ** 2)
    missed_by = [abs(rate - 0.3) for rate in rates]
    assert statistics.median(missed_by[20:]) < 0.6 * statistics.median(missed_by[:10])


def test_a_study_outlives_its_process(search: Callable[..., Search]) -> None:
    """What was told is known, what was broken off is taken up first, with the same values."""
    first = search(*SPACE)
    complete(first, taken(first), 4.0)
    broken_off = [taken(first), taken(first)]
    assert first.ended(broken_off[0], "interrupted") == "interrupted"

    again = search(*SPACE)
    assert [taken(again), taken(again)] == broken_off
    complete(again, broken_off[0], 5.0)
    others = [taken(again) for _ in range(5)]
    assert again.next() is None
    assert again.jobs()[3:] == others
    assert search(*SPACE).jobs() == again.jobs()


def test_the_proposals_do_not_depend_on_where_it_was_broken_off(search: Callable[..., Search], tmp_path: Path) -> None:
    def names(folder: Path, sessions: int) -> list[str]:
        folder.mkdir()
        for _ in range(sessions):
            found = Search(folder, SPACE, {}, 8, seed=1)
            for _place in range(8 // sessions):
                complete(found, taken(found), 4.0)
        return [job.name for job in found.jobs()]

    assert names(tmp_path / "whole", 1) == names(tmp_path / "broken", 4)


def test_hopeless_jobs_are_given_up(search: Callable[..., Search]) -> None:
    """Those whose third validation, or a later one, is worse than the median at the same step."""
    found = search(*SPACE)
    for loss in (4.0, 4.1, 4.2, 4.3):
        done = taken(found)
        validated(done, loss + 2, loss + 1, loss)
        assert found.is_wanted(done)
        complete(found, done, loss)
    job = taken(found)
    validated(job, 9.0, 8.0)
    assert found.is_wanted(job)
    validated(job, 9.0, 8.0, 7.0)
    assert not found.is_wanted(job)
    assert found.ended(job, "interrupted") == "pruned"
    assert json.loads((job.folder / "summary.json").read_text())["status"] == "pruned"
    assert is_settled(job), "a sweep that goes on leaves it alone"

    good = taken(found)
    validated(good, 5.0, 4.5, 3.0)
    assert found.is_wanted(good)
    assert search(*SPACE, total=6).next() == good, "which is not done; the pruned one is"


def test_several_processes_share_a_study(search: Callable[..., Search]) -> None:
    one, other = search(*SPACE), search(*SPACE)
    first = taken(one)
    assert taken(other) == first, "which only one of them can claim"
    assert other.ended(first, ELSEWHERE) == ELSEWHERE
    second = taken(other)
    assert second != first
    complete(one, first, 4.0)
    complete(other, second, 5.0)
    assert {job.name for job in one.jobs()} == {first.name, second.name}
