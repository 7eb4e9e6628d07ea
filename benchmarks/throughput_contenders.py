"""What runs in a process of its own beside train.py: the other contenders, the data for them, the matrix product.

    python benchmarks/throughput_contenders.py NAME JOB      # JOB: see `Job.to_json`; `throughput.py` calls it

The last line that it prints is the result as JSON; of a contender the seconds of every `Job.every` steps.
"""

import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from throughput_shapes import AUTOMATIC, BETAS, CLIP_NORM, LEARNING_RATE, PROJECT, SEED, WEIGHT_DECAY, Job, settings
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

sys.path.insert(0, str(PROJECT))

MATRIX_SECONDS = 1  # for each number format
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Laps:
    """The seconds of every so many steps."""

    def __init__(self, every: int) -> None:
        self.seconds: list[float] = []
        self._every = every
        self._steps = 0
        self._clock = _clock()

    def step(self) -> None:
        """To be called after each step; waits for the device as seldom as ours does when it logs."""
        self._steps += 1
        if self._steps % self._every == 0:
            now = _clock()
            self.seconds.append(now - self._clock)
            self._clock = now


def _clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def prepare(job: Job) -> dict[str, Any]:
    """Encodes the corpus, so that every contender finds it in the cache or as a file of ids."""
    from hp_lightning.data.dataset import tokenize_corpus
    from hp_lightning.models.gpt import GPT

    cfg = _config(job)
    corpus = tokenize_corpus(cfg.data, cfg.tokenizer)
    assert job.shape.vocab_size < 2**16
    corpus.streams["train"].astype(np.uint16).tofile(job.token_file)
    with torch.device("meta"):
        net = GPT(cfg.model)
    return {
        "flops_per_token": net.flops_per_token(job.shape.seq_len),
        "vocabulary": len(corpus.tokenizer.vocabulary),
        "tokens": len(corpus.streams["train"]),
    }


def matrix(job: Job) -> dict[str, float]:
    """Operations a second of a product of square matrices, the best of several, by number format."""
    size = 8192 if DEVICE.type == "cuda" else 2048  # a small product does not fill a GPU
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
        left @ right
        times: list[float] = []
        while sum(times) < MATRIX_SECONDS or len(times) < 3:
            begin = _clock()
            left @ right
            times.append(_clock() - begin)
        rates[str(dtype).removeprefix("torch.")] = 2 * size**3 / min(times)
    return rates


def plain_loop(job: Job) -> dict[str, list[float]]:
    """Our network, optimizer and data without Lightning and all that train.py does around a step."""
    from hp_lightning.data.dataloader import TrainSequences
    from hp_lightning.data.dataset import tokenize_corpus
    from hp_lightning.models.gpt import GPT
    from hp_lightning.training.auto import resolve_auto
    from hp_lightning.training.optim import build_optimizer

    if DEVICE.type == "cuda":
        torch.set_float32_matmul_precision("high")  # as train.py has it
    cfg = _config(job)
    stream = tokenize_corpus(cfg.data, cfg.tokenizer).streams["train"]
    cfg = resolve_auto(cfg, len(stream) - 1).cfg
    torch.manual_seed(cfg.seed)
    net = GPT(cfg.model, cfg.regularization).to(DEVICE)
    optimizer = build_optimizer(net, cfg.optim, cfg.regularization.weight_decay)
    loss_of = _loss_function(cfg, net)
    sequences = TrainSequences(torch.from_numpy(stream), job.shape.seq_len, job.shape.batch_size, cfg.seed)
    sequences.share_out(0, DEVICE)
    batches = itertools.chain.from_iterable(itertools.repeat(sequences))  # one epoch after the other
    laps = Laps(job.every)
    for token_ids, targets in itertools.islice(batches, job.steps):
        loss = loss_of(token_ids, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(net.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        laps.step()
    return {"seconds": laps.seconds}


def _loss_function(cfg: Any, net: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss by the same means by which `GPTModule` comes to it."""
    from hp_lightning.models.loss import language_model_loss
    from hp_lightning.training.compile import compiled

    loss_of = compiled(language_model_loss, DEVICE.type) if cfg.trainer.compile else language_model_loss

    def mixed(token_ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=cfg.trainer.precision == "bf16-mixed"):
            return loss_of(net, token_ids, targets)

    return mixed


def transformers(job: Job) -> dict[str, list[float]]:
    """GPT-2 and the Trainer as they are by default: eager, float32. Its network has biases and cannot do without."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    shape = job.shape
    further: dict[str, Any] = {"attn_implementation": "sdpa"}  # the signature does not name it
    network = GPT2Config(
        vocab_size=shape.vocab_size, n_positions=shape.seq_len, n_embd=shape.d_model, n_layer=shape.num_layers,
        n_head=shape.num_heads, resid_pdrop=shape.dropout, embd_pdrop=shape.dropout, attn_pdrop=shape.dropout,
        bos_token_id=0, eos_token_id=0, **further,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=f"{job.folder}/transformers", save_strategy="no", report_to="none", disable_tqdm=True,
        max_steps=job.steps, per_device_train_batch_size=shape.batch_size, max_grad_norm=CLIP_NORM,
        learning_rate=LEARNING_RATE, adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=WEIGHT_DECAY,
        optim="adamw_torch_fused", use_cpu=DEVICE.type == "cpu", dataloader_pin_memory=DEVICE.type == "cuda", seed=SEED,
    )  # fmt: skip

    class Timing(TrainerCallback):
        """Looks at the clock after every step."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.laps = Laps(job.every)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.laps.step()

    timing = Timing()
    sequences = _token_ids(job)[:-1].astype(np.int64)
    sequences = sequences[: len(sequences) // shape.seq_len * shape.seq_len].reshape(-1, shape.seq_len)
    dataset: Any = [{"input_ids": sequence, "labels": sequence} for sequence in torch.from_numpy(sequences)]
    Trainer(GPT2LMHeadModel(network), arguments, train_dataset=dataset, callbacks=[timing]).train()
    return {"seconds": timing.laps.seconds}


def nanogpt(job: Job) -> dict[str, list[float]]:
    """nanoGPT's network in the loop of its train.py; its GELU is the exact one, not the approximation of GPT-2."""
    torch.manual_seed(SEED)
    torch.backends.cuda.matmul.allow_tf32 = True
    model = _nanogpt_model(job).to(DEVICE)
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LEARNING_RATE, BETAS, DEVICE.type)
    on_gpu = DEVICE.type == "cuda"
    forward = torch.compile(model) if on_gpu else model  # its README: --compile=False on a CPU
    autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=on_gpu)
    token_ids, targets = _nanogpt_batch(job)
    laps = Laps(job.every)
    for _ in range(job.steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        with autocast:
            _, loss = forward(token_ids, targets)
        token_ids, targets = _nanogpt_batch(job)
        loss.backward()
        clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        laps.step()
    return {"seconds": laps.seconds}


def nanogpt_module(folder: Path) -> Any:
    """A checkout's model.py."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def _nanogpt_model(job: Job) -> Any:
    module = nanogpt_module(Path(job.nanogpt or ""))
    shape = job.shape
    return module.GPT(
        module.GPTConfig(
            block_size=shape.seq_len, vocab_size=shape.vocab_size, n_layer=shape.num_layers, n_head=shape.num_heads,
            n_embd=shape.d_model, dropout=shape.dropout, bias=False,
        )
    )  # fmt: skip


def _nanogpt_batch(job: Job) -> tuple[Tensor, Tensor]:
    """As in `get_batch` of its train.py, which also opens the file anew for each batch."""
    data, length = _token_ids(job), job.shape.seq_len
    begins = torch.randint(len(data) - length, (job.shape.batch_size,)).tolist()
    x = torch.stack([torch.from_numpy(data[i : i + length].astype(np.int64)) for i in begins])
    y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + length].astype(np.int64)) for i in begins])
    if DEVICE.type == "cuda":
        x, y = x.pin_memory(), y.pin_memory()
    return x.to(DEVICE, non_blocking=True), y.to(DEVICE, non_blocking=True)


def _token_ids(job: Job) -> Any:
    return np.memmap(job.token_file, dtype=np.uint16, mode="r")


def _config(job: Job) -> Any:
    """The `TrainConfig` that train.py makes of the job's settings."""
    from hydra import compose, initialize_config_dir

    from hp_lightning.cli import app
    from hp_lightning.schema.compose import SCHEMAS
    from hp_lightning.schema.train import train_config

    given = {**settings(job), **AUTOMATIC}.items()
    overrides = app.as_typed([f"{key}={value}" for key, value in given], SCHEMAS["train"])
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return train_config(compose("train", overrides=overrides))


PROGRAMS: dict[str, Callable[[Job], dict[str, Any]]] = {
    program.__name__: program for program in (prepare, matrix, plain_loop, transformers, nanogpt)
}

if __name__ == "__main__":
    result = PROGRAMS[sys.argv[1]](Job.from_json(sys.argv[2]))
    print(json.dumps(result))
