"""Search instead of a grid: Optuna proposes the next job by the results of the others.

Hydra's own plugin for Optuna is bound to its version 2, which fails on current SQLAlchemy, optimises the last value and
not the best, and knows no pruning; this one uses current Optuna (Akiba et al. 2019, arXiv:1907.10902) itself. To be
deleted when Hydra 1.4 is out, whose plugin takes Optuna 4.9 and later (hydra-ecosystem/hydra#3211), if that prunes.
"""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from hp_lightning.common.errors import InputError
from hp_lightning.common.run_dir import COMPLETE
from hp_lightning.sweeps.comparison.runs import read_metrics
from hp_lightning.sweeps.job import ELSEWHERE, record
from hp_lightning.sweeps.plan import Job, make_job

STUDY = "study.log"
VALIDATIONS_BEFORE_PRUNING = 3  # the first say more of the warm-up than of the end
DIGITS = 3  # of a proposed number; more say nothing, and make long names

Suggest = Callable[[Trial], str]


class Search:
    """The jobs of a study, which lies in the sweep's folder.

    Args:
        sweep_dir: the sweep's folder
        overrides: what was given; values with interval(), choice(), range() or commas are searched
        preset: the same, searched where none of `overrides` is to be
        total: jobs
        seed: of the proposals; the one for a job depends on it, on the job's number, and on what is known by then
    """

    def __init__(self, sweep_dir: Path, overrides: list[str], preset: dict[str, str], total: int, seed: int) -> None:
        self.total = total
        self._dir = sweep_dir
        parsed = OverridesParser.create().parse_overrides(overrides)
        searched = [override for override in parsed if override.is_sweep_override()]
        if not searched:
            searched = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in preset.items()])
        if not searched:
            raise InputError(
                "sweep.nothing_to_search",
                "there is nothing to search: give a key an interval(...), a choice(...) or several values",
            )
        self._space = {override.get_key_element(): _suggestion(override) for override in searched}
        self._fixed = [
            f"{override.get_key_element()}={override.get_value_element_as_str()}"
            for override in parsed
            if not override.is_sweep_override()
        ]
        self._seed = seed
        self._trials: dict[Job, Trial] = {}  # that this session has had
        self._rows: dict[Job, int] = {}  # of metrics.csv, that the study knows of
        self._pruned: set[Job] = set()

    @cached_property
    def _study(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(
            study_name="sweep",
            storage=JournalStorage(JournalFileBackend(str(self._dir / STUDY))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
            load_if_exists=True,
        )

    def jobs(self) -> list[Job]:
        """All that were proposed so far."""
        return [self._job(Trial(self._study, trial._trial_id)) for trial in self._study.get_trials(deepcopy=False)]

    def next(self) -> Job | None:
        """A job that was broken off, else a new one; None where enough were proposed."""
        trials = self._study.get_trials(deepcopy=False)
        known = {trial.number for trial in self._trials.values()}
        for left in trials:
            if left.state == TrialState.RUNNING and left.number not in known:
                return self._take(Trial(self._study, left._trial_id))
        return self._take(self._study.ask()) if len(trials) < self.total else None

    def is_wanted(self, job: Job) -> bool:
        """Whether the job's validation losses are no worse than the median of the others' at the same step."""
        trial = self._trials[job]
        rows = _validations(job)
        for step, loss in rows[self._rows.get(job, 0) :]:
            trial.report(loss, step)
        self._rows[job] = len(rows)
        if len(rows) >= VALIDATIONS_BEFORE_PRUNING and job not in self._pruned and trial.should_prune():
            self._pruned.add(job)
            return False
        return True

    def ended(self, job: Job, status: str) -> str:
        """Report the job to the study."""
        trial = self._trials[job]
        if status == "interrupted" and job in self._pruned:
            record(job, "pruned", "worse than the median of the other jobs at the same step")
            status = "pruned"
        best = job.run_dir.read_summary().get("best/val/loss")
        if status in COMPLETE and best is not None:
            self._study.tell(trial, best, skip_if_finished=True)
        elif status == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        elif status not in ("interrupted", ELSEWHERE):
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        return status

    def _take(self, trial: Trial) -> Job:
        job = self._job(trial)
        self._trials[job] = trial
        return job

    def _job(self, trial: Trial) -> Job:
        """The job of a trial; what it has no proposal for yet is proposed."""
        self._study.sampler = optuna.samplers.TPESampler(seed=self._seed + trial.number)  # Bergstra et al. 2011
        proposed = [f"{key}={suggest(trial)}" for key, suggest in self._space.items()]
        return make_job(self._dir, trial.number, [*self._fixed, *proposed], set(self._space))


def _suggestion(override: Override) -> Suggest:
    """How a value is proposed, as an override's right side."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        start, end, is_log = value.start, value.end, "log" in value.tags
        assert start is not None
        assert end is not None
        if not (math.isfinite(start) and math.isfinite(end) and start <= end and (start > 0 or not is_log)):
            raise InputError(
                "sweep.empty_range",
                f"{override.input_line} is not an interval: the first number must be below the second"
                + (", and above 0 for a logarithm" if is_log else ""),
            )
        if isinstance(start, int) and isinstance(end, int):
            return lambda trial: str(trial.suggest_int(key, int(start), int(end), log=is_log))
        return lambda trial: f"{trial.suggest_float(key, start, end, log=is_log):.{DIGITS}g}"
    if isinstance(value, RangeSweep):
        values = list(value.range()) if value.step else []
        if not values:
            raise InputError("sweep.empty_range", f"{override.input_line} has no values: take range(first,end,step)")
        return lambda trial: str(trial.suggest_categorical(key, values))
    choices = list(override.sweep_string_iterator())
    return lambda trial: str(trial.suggest_categorical(key, choices))


def _validations(job: Job) -> list[tuple[int, float]]:
    """Step and loss of each validation so far."""
    try:
        curve, _ = read_metrics(job.run_dir.metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet, or damaged
        return []
    return [(validation.step, validation.loss) for validation in curve if math.isfinite(validation.loss)]
