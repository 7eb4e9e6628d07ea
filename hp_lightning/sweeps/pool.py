"""Jobs side by side: started, watched, counted, and stopped together."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from hp_lightning.common.console import log
from hp_lightning.common.errors import SIGNALS, Interrupted
from hp_lightning.sweeps.display import SweepDisplay
from hp_lightning.sweeps.job import ELSEWHERE, JobProcess, is_settled
from hp_lightning.sweeps.plan import Job


class Source(Protocol):
    """Where the jobs of a sweep come from; its methods are called one at a time."""

    total: int  # of jobs

    def next(self) -> Job | None:
        """The next job; None where there is no other."""

    def is_wanted(self, job: Job) -> bool:
        """Whether a job that has just printed something may continue."""

    def ended(self, job: Job, status: str) -> str:
        """Note how a job ended; return its status."""


class Pool:
    """Runs the jobs of a source, as many at a time as there are slots.

    Args:
        source: where the jobs come from
        sweep_dir: the sweep's folder
        slots: for each job that may run at a time, its environment variables
        max_failures: failed jobs after which no other is started
    """

    def __init__(
        self, source: Source, sweep_dir: Path, slots: Sequence[Mapping[str, str]], max_failures: int | None
    ) -> None:
        self._source = source
        self._dir = sweep_dir
        self._slots = slots
        self._max_failures = max_failures
        self._lock = threading.Lock()
        self._running: dict[Job, JobProcess] = {}
        self._bug: BaseException | None = None
        self._display = SweepDisplay(source.total)
        self.received: int | None = None  # the signal that ended it
        self.ended: Counter[str] = Counter()  # how many jobs came to which status

    @property
    def is_stopping(self) -> bool:
        """Whether no other job may start."""
        too_many = self._max_failures is not None and self.ended["failed"] >= self._max_failures
        return self.received is not None or too_many or self._bug is not None

    def run(self) -> None:
        """Until every job has ended.

        Raises:
            Interrupted: a signal was received, and the running jobs have saved and left
        """
        threads = [threading.Thread(target=self._work, args=(slot,)) for slot in self._slots]
        announced = False
        with self._signals(), self._display.live:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.1)  # signals are handled in between
                if self.received is not None and not announced:
                    log.info("stopping: the running jobs save what they have done; a second signal ends them at once")
                    announced = True
        if self._bug is not None:
            raise self._bug
        if self.received is not None:
            raise Interrupted("sweep.interrupted", f"stopped by {signal.Signals(self.received).name}", self.received)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if number != signal.SIGHUP or handler != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for process in list(self._running.values()):
            process.stop()

    def _work(self, slot: Mapping[str, str]) -> None:
        try:
            while (job := self._next()) is not None:
                status = self._train(job, slot)
                with self._lock:
                    status = self._source.ended(job, status)
                    self.ended[status] += 1
                    self._display.end(job, status, job.run_dir.read_summary())
        except BaseException as error:  # a thread's would be lost
            self._bug = error

    def _next(self) -> Job | None:
        with self._lock:
            return None if self.is_stopping else self._source.next()

    def _train(self, job: Job, slot: Mapping[str, str]) -> str:
        if job.run_dir.is_running():
            return ELSEWHERE
        if is_settled(job):
            return str(job.run_dir.read_summary()["status"])
        with self._lock:
            self._running[job] = process = JobProcess(job, self._dir, slot)
            self._display.start(job)
        if self.received is not None:  # meanwhile
            process.stop()
        try:
            for line in process.lines():
                self._display.say(job, line)
                with self._lock:
                    if not self._source.is_wanted(job):
                        process.stop()
            return process.outcome()
        finally:
            process.stop()
            with self._lock:
                del self._running[job]
