"""nanoGPT on the tokens of one of our runs, with its own loop and schedule; `results.py` calls it.

    python benchmarks/results_nanogpt.py DIR JOB      # DIR: a checkout; JOB: see `Job.to_json`

Writes JSON: the validation loss over every token of the validation split, and the seconds of training until then.
"""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from throughput_contenders import DEVICE, nanogpt_module
from throughput_shapes import PROJECT

sys.path.insert(0, str(PROJECT))

# Of config/train_shakespeare_char.py, which its README recommends for small networks.
LEARNING_RATE, LEAST_RATE, BETAS, WEIGHT_DECAY, CLIP_NORM, WARMUP_STEPS, SEED = (
    1e-3,
    1e-4,
    (0.9, 0.99),
    0.1,
    1.0,
    100,
    1,
)


@dataclass(frozen=True)
class Job:
    """What is trained, and for how long."""

    settings: list[str]  # of train.py: they name corpus, tokenizer and the size of the network
    dropout: float
    minutes: float  # of training; where steps are given, no bound
    steps: int | None
    validations: int
    to: str  # the JSON file

    def to_json(self) -> str:
        """For the command line of the process."""
        return json.dumps(asdict(self))


def main() -> None:
    """Trains, and writes the curve when all is done."""
    module, job = nanogpt_module(Path(sys.argv[1])), Job(**json.loads(sys.argv[2]))
    cfg, corpus = _corpus(job.settings)
    torch.manual_seed(SEED)
    shape = cfg.model
    network = module.GPTConfig(
        block_size=cfg.data.seq_len, vocab_size=len(corpus.tokenizer.vocabulary), n_layer=shape.num_layers,
        n_head=shape.num_heads, n_embd=shape.d_model, dropout=job.dropout, bias=False,
    )  # fmt: skip
    model = module.GPT(network).to(DEVICE)
    curve = _train(model, torch.from_numpy(corpus.streams["train"]).long(), _validation(cfg, corpus), cfg, job)
    result = {"parameters": sum(p.numel() for p in model.parameters()), "curve": curve}
    unfinished = Path(job.to).with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result), encoding="utf-8")
    unfinished.replace(job.to)


def _train(model: Any, stream: torch.Tensor, windows: Any, cfg: Any, job: Job) -> list[tuple[int, float, float]]:
    """Step, seconds of training and validation loss, again and again."""
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, DEVICE.type)
    limit, seconds, step = 60 * job.minutes, 0.0, 0
    curve: list[tuple[int, float, float]] = []
    progress = warmed_up = 0.0
    while progress < 1:
        if step == WARMUP_STEPS:
            warmed_up = progress
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, (progress - warmed_up) / (1 - warmed_up))
        token_ids, targets = _batch(stream, cfg.data.seq_len, cfg.data.batch_size or 32)
        _, loss = model(token_ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        seconds += time.perf_counter() - begin
        progress = seconds / limit if job.steps is None else step / job.steps
        if progress * job.validations >= len(curve) + 1:
            curve.append((step, seconds, _loss(model, windows)))
            print(f"nanoGPT  step {step:,}  {seconds:,.0f} s  validation loss {curve[-1][2]:.4f}", flush=True)
    return curve


def _rate(step: int, progress: float) -> float:
    """Its warm-up, and its cosine from there to the run's end, of which `progress` is the share that is over."""
    cosine = LEAST_RATE + (LEARNING_RATE - LEAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
    return LEARNING_RATE * (step + 1) / WARMUP_STEPS if step < WARMUP_STEPS else cosine


def _batch(stream: torch.Tensor, length: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As in `get_batch` of its train.py."""
    begins = torch.randint(len(stream) - length, (size,)).tolist()
    inputs = torch.stack([stream[i : i + length] for i in begins])
    targets = torch.stack([stream[i + 1 : i + 1 + length] for i in begins])
    return inputs.to(DEVICE), targets.to(DEVICE)


@torch.no_grad()
def _loss(model: Any, windows: Any) -> float:
    """Nats a token, over all tokens."""
    from hp_lightning.models.loss import IGNORED

    model.eval()
    total, count = 0.0, 0
    for token_ids, targets in windows:
        logits, _ = model(token_ids.to(DEVICE), targets.clamp(min=0).to(DEVICE))  # without targets: of the last
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.to(DEVICE).flatten(), ignore_index=IGNORED, reduction="sum"
        )
        total, count = total + losses.item(), count + int((targets != IGNORED).sum())
    model.train()
    return total / count


def _corpus(settings: list[str]) -> tuple[Any, Any]:
    """The config that train.py makes of the settings, and the corpus as it encodes it."""
    from hydra import compose, initialize_config_dir

    import hp_lightning.cli.app  # noqa: F401  makes the schemas known to Hydra
    from hp_lightning.data.dataset import tokenize_corpus
    from hp_lightning.schema.train import train_config

    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = train_config(compose("train", overrides=settings))
    return cfg, tokenize_corpus(cfg.data, cfg.tokenizer)


def _validation(cfg: Any, corpus: Any) -> Any:
    from hp_lightning.data.dataloader import EvalSequences

    return EvalSequences(torch.from_numpy(corpus.streams["val"]).long(), cfg.data.seq_len, 32)


if __name__ == "__main__":
    main()
