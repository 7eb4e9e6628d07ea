"""The programs that gpu.py starts: each with a limit, its output in the log, and none left running."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.005
LINES_OF_A_FAILURE = 3  # that the table shows; the log has all
ENDED, KILLED, LATE = "ended", "killed", "late"


class ProgramError(Exception):
    """A program failed or took too long; says so in one line."""


@dataclass(frozen=True)
class Ended:
    """Programs that have come to their end."""

    seconds: float  # from the command to the end of the last of them
    output: str


@dataclass(frozen=True)
class Programs:
    """Starts programs with one environment.

    Args:
        log: gets everything that they print
        environment: of all of them
        cwd: where they are started
    """

    log: Path
    environment: Mapping[str, str]
    cwd: Path

    def run(
        self,
        *commands: Sequence[str],
        limit: float,
        kill_when: Callable[[], bool] = lambda: False,
        statuses: tuple[int, ...] = (0,),
    ) -> Ended:
        """Runs programs side by side to their end.

        Args:
            limit: seconds after which they are killed
            kill_when: asked all the time; once it is true they are killed, which is no failure
            statuses: with which a program may end

        Raises:
            ProgramError: one failed, or the limit was reached
        """
        begin, offset = time.monotonic(), self._announce(commands)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes.extend(map(self._start, commands))
            how = _wait(processes, begin + limit, kill_when)
        finally:
            for process in processes:
                _kill_group(process)
        ended = Ended(time.monotonic() - begin, self.log.read_bytes()[offset:].decode(errors="replace"))
        if how == LATE:
            raise ProgramError(f"cut off after {ended.seconds:.0f} s")
        allowed = (*statuses, -signal.SIGKILL) if how == KILLED else statuses
        for process in processes:
            if process.returncode not in allowed:
                raise ProgramError(f"status {process.returncode}: {_last_lines(ended.output)}")
        return ended

    def _announce(self, commands: Sequence[Sequence[str]]) -> int:
        """Writes the commands into the log; gives its length."""
        with self.log.open("ab") as log:
            for command in commands:
                log.write(f"\n$ {shlex.join(command)}\n".encode())
            log.flush()
            return log.tell()

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """In a process group of its own, so that all that it starts can be killed with it."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.cwd,
                env=dict(self.environment), start_new_session=True,
            )  # fmt: skip


def _wait(processes: list[subprocess.Popen[bytes]], deadline: float, kill_when: Callable[[], bool]) -> str:
    """Until all have ended, `kill_when` is true, or the deadline is there: which of them came first."""
    while any(process.poll() is None for process in processes):
        if kill_when():
            return KILLED
        if time.monotonic() >= deadline:
            return LATE
        time.sleep(POLL_SECONDS)
    return ENDED


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_lines(output: str) -> str:
    return " / ".join([line.strip() for line in output.splitlines() if line.strip()][-LINES_OF_A_FAILURE:])
