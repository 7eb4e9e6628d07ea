"""A run as a job of SLURM: asking to be started again, and finding what was done before.

`#SBATCH --requeue --signal=USR1@90` sends SIGUSR1 to what `srun` has started ninety seconds before the job's time is up
(sbatch(1)).
"""

import os
import subprocess
from pathlib import Path

from hp_lightning.common.console import log
from hp_lightning.common.files import atomic_write_text
from hp_lightning.common.run_dir import RUNS, RunDir


def job_id() -> str | None:
    """The number of the batch job that this process is, as scontrol(1) takes it; None outside of one."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):  # a person's own shell ends with its time
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def mark(run_dir: RunDir) -> None:
    """Note in a run folder which job has made it."""
    job = job_id()
    if job is not None:
        atomic_write_text(run_dir.slurm_job, job + "\n")


def run_of_requeued_job(run_dir: str | None) -> Path | None:
    """The run that this job started before SLURM requeued it; None for a job that is started first.

    Args:
        run_dir: where the run lies, if the config says so
    """
    job = job_id()
    if job is None or int(os.environ.get("SLURM_RESTART_COUNT", "0")) == 0:
        return None
    marks = RUNS.glob(str(RunDir(Path("*")).slurm_job)) if run_dir is None else [RunDir(Path(run_dir)).slurm_job]
    matching = [path for path in marks if path.is_file() and path.read_text(encoding="utf-8").strip() == job]
    return max(matching, key=lambda path: path.stat().st_mtime).parent if matching else None


def requeue() -> str:
    """Ask SLURM to start this job again; return the answer, for a message."""
    job = job_id()
    assert job is not None
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("scontrol requeue %s failed: %s", job, getattr(error, "stderr", None) or error)
        return f"SLURM did not take job {job} again"
    return f"SLURM will start job {job} again"
