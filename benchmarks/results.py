"""What the presets come to on three corpora, beside nanoGPT and beside counting; makes docs/RESULTS.md.

    python benchmarks/results.py --data ../shared/data --nanogpt ../nanoGPT

Takes about two hours on two cores. What has been done already in the folder `--work` is not done again, and what was
broken off is gone on with.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from results_nanogpt import Job
from results_page import Curve, Measured, write_page
from results_plan import NanoGPT, Plan, plans
from throughput_shapes import PROJECT


def main() -> None:
    """Trains what is missing, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of state_union.csv and tinyshakespeare.csv")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--only", default="bundled,state_union,tinyshakespeare", help="of these corpora")
    parser.add_argument("--work", type=Path, default=PROJECT / "outputs" / "results", help="folder of the runs")
    parser.add_argument("--to", type=Path, default=PROJECT / "docs", help="folder for RESULTS.md and its pictures")
    parser.add_argument("--page", action="store_true", help="train nothing, write the page only")
    args = parser.parse_args()
    found = plans(str(args.data.resolve()))
    chosen = {name: found[name] for name in args.only.split(",")}
    if not args.page:
        for name, plan in chosen.items():
            train(args.work.resolve() / name, plan, args.nanogpt)
    write_page(args.to, {name: measured(args.work.resolve() / name, plan) for name, plan in chosen.items()})


def train(work: Path, plan: Plan, nanogpt: Path | None) -> None:
    """Every run of a corpus that has not come to its end, one after the other."""
    work.mkdir(parents=True, exist_ok=True)
    for label, job in plan.nanogpt.items():
        to = nanogpt_file(work, label)
        if nanogpt is not None and not to.is_file():
            print(f"== {plan.title}: {label}", flush=True)
            program("benchmarks/results_nanogpt.py", str(nanogpt), nanogpt_job(job, to).to_json())
    for name, settings in plan.sweeps.items():
        print(f"== {plan.title}: {name}", flush=True)
        sweep = work / name
        told = [f"resume_sweep={sweep}"] if sweep.is_dir() else [f"sweep.dir={sweep}", *plan.corpus, *settings]
        program("train.py", "-m", *told)


def nanogpt_job(job: NanoGPT, to: Path) -> Job:
    """The job as the process is told it."""
    return Job(list(job.settings), job.dropout, job.minutes, job.steps, job.validations, str(to))


def nanogpt_file(work: Path, label: str) -> Path:
    """Where the curve of a run of nanoGPT is kept."""
    return work / f"{''.join(letter if letter.isalnum() else '_' for letter in label)}.json"


def program(name: str, *arguments: str) -> None:
    """Runs a script of the project; what it prints is seen."""
    subprocess.run([sys.executable, str(PROJECT / name), *arguments], check=True, cwd=PROJECT)


def measured(work: Path, plan: Plan) -> Measured:
    """What lies in the folder of a corpus."""
    others = []
    for label in plan.nanogpt:
        path = nanogpt_file(work, label)
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            points = [(seconds, loss) for _, seconds, loss in result["curve"]]
            others.append(Curve(label, result["parameters"], result["curve"][-1][0], points))
    return Measured(plan, [work / name for name in plan.sweeps if (work / name).is_dir()], others)


if __name__ == "__main__":
    main()
