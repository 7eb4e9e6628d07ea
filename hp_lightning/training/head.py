"""What a run prints before it trains."""

from hp_lightning.common.console import log
from hp_lightning.data.corpus_table import show_corpus
from hp_lightning.training.run import Run


def describe(run: Run) -> None:
    """Print the folder, the corpus, what was chosen for the run, and its length."""
    data = run.data
    log.info("run     %s", run.dir)
    show_corpus(run.cfg.data.path, data.corpus, run.kneser_ney_loss)
    for reason in run.reasons:
        log.info("%s", reason)
    log.info(
        "length     %s steps of %s tokens, %s steps per epoch",
        f"{run.total_steps:,}", f"{data.tokens_per_step:,}", f"{data.steps_per_epoch:,}",
    )  # fmt: skip
    for remark in _remarks_on_length(run):
        log.info("           %s", remark)
    log.info("")


def _remarks_on_length(run: Run) -> list[str]:
    """Remarks on bounds that may surprise: one that comes before another, a warm-up that is long for the run."""
    total, cfg = run.total_steps, run.cfg
    remarks = []
    if cfg.max_steps is not None and total < cfg.max_steps:
        remarks.append(
            f"max_epochs={cfg.max_epochs} comes before max_steps={cfg.max_steps}: max_epochs=null leaves it out"
        )
    if 2 * cfg.optim.warmup_steps > total:
        remarks.append(
            f"optim.warmup_steps={cfg.optim.warmup_steps} is more than half of them: take fewer, or train longer"
        )
    return remarks
