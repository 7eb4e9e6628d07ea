"""How fast a network writes, beside others with the same weights.

    python benchmarks/generation.py --nanogpt ../nanoGPT                  # step 11's network and model=small, by turns
    python benchmarks/generation.py --device cuda                         # on a GPU

The contenders write 256 tokens after a prompt of one, greedily, one sample at a time and (those with a cache) sixteen:

    ours            what generate.py does: a cache, weights in float16, on the processor whatever else there is
    ours, float32   the same without the second, on the device
    without cache   the same network in a loop that gives it the whole text for every token, in float32
    transformers    its GPT-2 with the same weights, by its `generate` with its own cache; float32
    nanoGPT         a checkout's network of the same size with random weights, by its own `generate`, which has no cache
    own form        ours with what conf/model has for this size in place of GPT-2's form

They run in one process, by turns, in the other order in every second round; a speed is the median of the rounds. How
far they write the same tokens is said, too (nanoGPT's and our own form's weights are others).
"""

import argparse
import copy
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from json_files import write_json
from rich.console import Console
from rich.table import Table
from throughput_contenders import nanogpt_module
from throughput_shapes import PROJECT

sys.path.insert(0, str(PROJECT))

from hp_lightning.cli import app  # noqa: F401  makes schemas and resolvers known
from hp_lightning.inference.export import gpt2_weights
from hp_lightning.inference.fast_decoding import optimize_for_inference
from hp_lightning.inference.generate import Sampling, generate
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.model import ModelConfig
from hp_lightning.schema.train import train_config

SHAPES = ("roadmap", "small")  # whose sizes stand in conf/model
VOCAB_SIZE = 10_000
CONTEXT = 512  # of GPT-2's form
PROMPT = [1]
BATCHES = (1, 16)
NO_EOS = -1  # no sample ends early
CONSOLE = Console(width=None if sys.stdout.isatty() else 120, highlight=False)

Speeds = dict[str, list[float]]  # tokens per second in every round, by contender
Contender = Callable[[int, int], list[int]]  # how many samples, of how many tokens; gives the first one's


def main() -> None:
    """Prints a table for each size of network."""
    arguments = _arguments()
    CONSOLE.print(f"{torch.get_num_threads()} processor threads; device: {arguments.device}")
    everything: dict[str, dict[int, Speeds]] = {}
    for name in arguments.shapes:
        contenders = _contenders(name, arguments.nanogpt, arguments.device)
        _check(contenders, arguments.tokens)
        everything[name] = {batch: _measure(contenders, batch, arguments) for batch in BATCHES}
        _show(name, everything[name])
    if arguments.json is not None:
        medians = {
            name: {
                batch: {each: statistics.median(speeds[each]) for each in speeds} for batch, speeds in batches.items()
            }
            for name, batches in everything.items()
        }
        write_json(arguments.json, medians)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds, 3 by default")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="of a sample, 256 by default")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), metavar="NAME", help="cpu or cuda")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="{shape: {samples: {contender: tokens per second}}}")
    return parser.parse_args()


def _contenders(name: str, nanogpt: Path | None, device: torch.device) -> dict[str, Contender]:
    own, gpt2 = GPT(_config(f"model={name}")).eval(), _gpt2_config(name)
    torch.manual_seed(1)
    net = GPT(gpt2).eval()
    for parameter in net.parameters():  # larger than initially, or the same token would follow itself for ever
        if parameter.dim() == 2:
            parameter.data *= 5
    contenders = {"ours": _ours(optimize_for_inference(copy.deepcopy(net)))}
    net.to(device)
    contenders |= {"ours, float32": _ours(net), "without cache": _without_cache(net, device)}
    if importlib.util.find_spec("transformers") is not None:
        contenders["transformers"] = _transformers(net, device)
    else:
        CONSOLE.print("transformers is not installed (pip install -e '.[bench]'): left out")
    contenders["own form"] = _ours(optimize_for_inference(own) if device.type == "cpu" else own.to(device))
    return contenders if nanogpt is None else {**contenders, "nanoGPT": _nanogpt(nanogpt, gpt2, device)}


def _config(*overrides: str) -> ModelConfig:
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return train_config(compose("train", [*overrides, f"model.vocab_size={VOCAB_SIZE}"])).model


def _gpt2_config(name: str) -> ModelConfig:
    own = _config(f"model={name}")
    sizes = {key: getattr(own, key) for key in ("d_model", "num_heads", "num_layers", "d_ff")}
    return _config("model=gpt2", f"model.max_seq_len={CONTEXT}", *(f"model.{key}={n}" for key, n in sizes.items()))


def _ours(net: GPT) -> Contender:
    def write(samples: int, tokens: int) -> list[int]:
        sampling = Sampling(temperature=0, max_new_tokens=tokens, num_samples=samples)
        context = min(net.cfg.max_seq_len, CONTEXT)
        return [step.token_ids[0] for step in generate(net, PROMPT, NO_EOS, [], context, sampling)]

    return write


@torch.inference_mode()
def _next_without_cache(net: GPT, token_ids: torch.Tensor) -> torch.Tensor:
    return net.logits(net.features(token_ids)[:, -1]).argmax(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def _without_cache(net: GPT, device: torch.device) -> Contender:
    def write(samples: int, tokens: int) -> list[int]:
        token_ids = torch.tensor([PROMPT] * samples, device=device)
        for _ in range(tokens):
            token_ids = torch.cat([token_ids, _next_without_cache(net, token_ids)], dim=1)
        return token_ids[0, len(PROMPT) :].tolist()

    return write


def _transformers(net: GPT, device: torch.device) -> Contender:
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    cfg = net.cfg
    shape = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=CONTEXT, n_embd=cfg.d_model, n_layer=cfg.num_layers, n_head=cfg.num_heads,
        n_inner=cfg.d_ff, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(shape).train(False)
    model.to(device)  # type: ignore[arg-type]
    missing, unexpected = model.load_state_dict(gpt2_weights(net), strict=False)
    assert missing == ["lm_head.weight"], missing  # the embedding's
    assert not unexpected, unexpected
    settings = GenerationConfig.from_dict({"do_sample": False, "use_cache": True, "pad_token_id": 0})

    def write(samples: int, tokens: int) -> list[int]:
        token_ids = torch.tensor([PROMPT] * samples, device=device)
        mask = torch.ones_like(token_ids)
        settings.max_new_tokens = tokens
        written = model.generate(token_ids, generation_config=settings, attention_mask=mask)
        return written[0, len(PROMPT) :].tolist()  # type: ignore[no-any-return]

    return write


def _nanogpt(folder: Path, cfg: ModelConfig, device: torch.device) -> Contender:
    module = nanogpt_module(folder)
    shape = module.GPTConfig(
        block_size=CONTEXT, vocab_size=VOCAB_SIZE, n_layer=cfg.num_layers, n_head=cfg.num_heads, n_embd=cfg.d_model,
        dropout=0.0, bias=True,
    )  # fmt: skip
    model = module.GPT(shape).eval().to(device)

    def write(samples: int, tokens: int) -> list[int]:
        with torch.no_grad():
            prompts = torch.tensor([PROMPT] * samples, device=device)
            written = model.generate(prompts, tokens, temperature=0.8, top_k=200)
        return written[0, len(PROMPT) :].tolist()  # type: ignore[no-any-return]

    return write


def _check(contenders: dict[str, Contender], tokens: int) -> None:
    """Says how far the contenders with the same weights write the same tokens; also warms all of them up."""
    written = {name: write(1, tokens) for name, write in contenders.items()}
    reference = written["without cache"]
    CONSOLE.print(f"without cache: {tokens} tokens, {len(set(reference))} different ones")
    for name in [name for name in ("ours", "ours, float32", "transformers") if name in written]:
        pairs = enumerate(zip(written[name], reference, strict=True))
        alike = next((place for place, (token, other) in pairs if token != other), tokens)
        CONSOLE.print(f"{name}: the same up to token {alike}")


def _measure(contenders: dict[str, Contender], batch: int, arguments: argparse.Namespace) -> Speeds:
    names = [name for name in contenders if batch == 1 or name not in ("without cache", "nanoGPT")]
    speeds: Speeds = {name: [] for name in names}
    for turn in range(arguments.runs):
        for name in names if turn % 2 == 0 else reversed(names):
            begin = time.perf_counter()
            contenders[name](batch, arguments.tokens)
            speeds[name].append(batch * arguments.tokens / (time.perf_counter() - begin))
    return speeds


def _show(name: str, measured: dict[int, Speeds]) -> None:
    table = Table(title=f"\n{name}, tokens per second: median (from - to)", title_justify="left")
    table.add_column("contender")
    for batch in BATCHES:
        table.add_column(f"{batch} at a time", justify="right")
        table.add_column("ours is", justify="right")
    for contender in measured[1]:
        cells = []
        for batch in BATCHES:
            speeds = measured[batch].get(contender)
            if speeds is None:
                cells += ["", ""]
                continue
            speed, ours = statistics.median(speeds), statistics.median(measured[batch]["ours"])
            cells += [f"{speed:,.0f} ({min(speeds):,.0f} - {max(speeds):,.0f})", f"{ours / speed:.1f} x"]
        table.add_row(contender, *cells)
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
