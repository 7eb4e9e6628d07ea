"""What the presets reach on three corpora, compared with nanoGPT and the n-gram baseline; makes docs/RESULTS.md.

    python benchmarks/results.py --data DIR --nanogpt DIR

Takes about two hours on two cores. Every run has half of them: nanoGPT and ours are begun at the same time, so that
whatever else the machine does slows both. What has been done already in the folder `--work` is not done again, and what
was broken off is gone on with.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from results_nanogpt import Job
from results_page import Curve, Measured, write_page
from results_plan import NanoGPT, Plan, plans
from throughput_shapes import PROJECT

sys.path.insert(0, str(PROJECT))

from hp_lightning.common.run_dir import COMPLETE, RunDir
from hp_lightning.sweeps.plan import read_plan


def main() -> None:
    """Trains what is missing, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora, such as state_union.csv")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--only", default="bundled,widths,state_union,tinyshakespeare", help="of these and two_million")
    parser.add_argument("--work", type=Path, default=PROJECT / "outputs" / "results", help="folder of the runs")
    parser.add_argument("--to", type=Path, default=PROJECT / "docs", help="folder for RESULTS.md and its pictures")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page only")
    args = parser.parse_args()
    found = plans(str(args.data.resolve()))
    if unknown := set(args.only.split(",")) - found.keys():
        parser.error(f"--only {','.join(sorted(unknown))}: there are {','.join(found)}")
    chosen = {name: found[name] for name in args.only.split(",")}
    if not args.page:
        if missing := missing_files(list(chosen.values()), args.nanogpt):
            parser.error(f"there is no {missing[0]}: name the folders in which such files lie by --data and --nanogpt")
        for name, plan in chosen.items():
            if other := runs_of_other_settings(args.work.resolve() / name, plan):
                parser.error(f"{other[0]} holds runs with other settings: delete it, or name another folder by --work")
        for name, plan in chosen.items():
            train(args.work.resolve() / name, plan, args.nanogpt)
    args.to.mkdir(parents=True, exist_ok=True)
    whole = {name: measured(args.work.resolve() / name, plan) for name, plan in found.items()}
    trained = {name: one for name, one in whole.items() if one.folders}
    for name in whole.keys() - trained.keys():
        print(f"{name}: nothing in {args.work}, left out of the page", file=sys.stderr)
    if not trained:
        parser.error(f"nothing has been trained in {args.work}: leave --page out, or name the folder by --work")
    write_page(args.to, trained)


def missing_files(chosen: list[Plan], nanogpt: Path | None) -> list[Path]:
    """What the runs need and is not there."""
    settings = [setting.partition("=") for plan in chosen for setting in plan.corpus]
    needed = [Path(value) for key, _, value in settings if key == "data.path"]
    needed += [] if nanogpt is None else [nanogpt / "model.py"]
    return [path for path in needed if not path.is_file()]


def runs_of_other_settings(work: Path, plan: Plan) -> list[Path]:
    """Folders of sweeps that were begun otherwise than the plan has them now."""
    begun = [work / name for name in plan.sweeps if (work / name / "sweep.yaml").is_file()]
    return [sweep for sweep in begun if set(read_plan(sweep)) != set(told(sweep, plan))]


def told(sweep: Path, plan: Plan) -> list[str]:
    """What train.py -m is told for a sweep of a plan."""
    return ["sweep.jobs=1", f"sweep.dir={sweep}", *plan.corpus, *plan.sweeps[sweep.name]]


def train(work: Path, plan: Plan, nanogpt: Path | None) -> None:
    """Every run that has not come to its end, two at a time; where nanoGPT is compared, it is one of them."""
    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as side_by_side:
        sides = []
        if nanogpt is not None and plan.nanogpt:
            sides.append(side_by_side.submit(train_nanogpt, work, plan, nanogpt))
        if plan.nanogpt:
            sides.append(side_by_side.submit(train_ours, work, plan, list(plan.sweeps)))
        else:
            sides += [side_by_side.submit(train_ours, work, plan, [name]) for name in plan.sweeps]
        try:
            for side in sides:
                side.result()
        except BaseException:  # what runs saves and leaves, what waits does not begin any more
            side_by_side.shutdown(wait=False, cancel_futures=True)
            raise


def train_ours(work: Path, plan: Plan, sweeps: list[str]) -> None:
    """Some of the sweeps, one run after the other."""
    for name in sweeps:
        print(f"== {plan.title}: {name}", flush=True)
        sweep = work / name
        begun = (sweep / "sweep.yaml").is_file()
        program("train.py", "-m", *(["sweep.jobs=1", f"resume_sweep={sweep}"] if begun else told(sweep, plan)))


def train_nanogpt(work: Path, plan: Plan, folder: Path) -> None:
    """The runs of nanoGPT, one after the other."""
    for label, job in plan.nanogpt.items():
        to = nanogpt_file(work, label)
        if not to.is_file():
            print(f"== {plan.title}: {label}", flush=True)
            program("benchmarks/results_nanogpt.py", str(folder), nanogpt_job(job, to).to_json())


def nanogpt_job(job: NanoGPT, to: Path) -> Job:
    """The job as the process is told it."""
    return Job(list(job.settings), job.dropout, job.minutes, job.steps, job.validations, str(to))


def nanogpt_file(work: Path, label: str) -> Path:
    """Where the curve of a run of nanoGPT is kept."""
    return work / f"{''.join(letter if letter.isalnum() else '_' for letter in label)}.json"


def program(name: str, *arguments: str) -> None:
    """Runs a script of the project on half of the cores; what it prints is seen."""
    threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // 2, 1))}
    subprocess.run([sys.executable, str(PROJECT / name), *arguments], check=True, cwd=PROJECT, env=os.environ | threads)


def has_ended(summary: Path) -> bool:
    """Whether a run has come to its end: the page shows no others."""
    return RunDir(summary.parent).read_summary().get("status") in COMPLETE


def measured(work: Path, plan: Plan) -> Measured:
    """What lies in the folder of a corpus."""
    others = []
    for label in plan.nanogpt:
        path = nanogpt_file(work, label)
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            points = [(seconds, loss) for _, seconds, loss in result["curve"]]
            others.append(Curve(label, result["parameters"], result["curve"][-1][0], points))
    trained = [work / name for name in plan.sweeps if any(map(has_ended, (work / name).glob("*/summary.json")))]
    return Measured(plan, trained, others)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print(f"stopped; to go on: {shlex.join([sys.executable, *sys.argv])}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shlex.join(error.cmd)} ended with status {error.returncode}; the same command goes on from there")
