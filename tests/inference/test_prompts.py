"""What a person sees of a model that writes: prompts in, text or JSON out, while it grows."""

import io
import json
import math
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.errors import expect_line, refused
from helpers.networks import save_untrained
from helpers.processes import PROJECT, command, environment, launch, run_program
from hydra import compose, initialize_config_dir

from hp_lightning.inference import model as loaded
from hp_lightning.inference import prompts
from hp_lightning.inference.generate import Sample, Step, stream
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.generate import GenerateConfig, generate_config
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tokenizers import Tokenizer, learn_tokenizer

SIZES = ["d_model=16", "num_heads=2", "num_layers=1", "d_ff=16", "max_seq_len=16"]
TEXTS = ['"The fog, the fox," said Wren, "sat down."\nThe fox sat.', "The fog came in, and the fox sat. The end."] * 2
Model = tuple[str, Tokenizer, GPT]


@pytest.fixture(scope="module")
def model(make_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A checkpoint, its tokenizer and its network, which has learned nothing."""
    path = tmp_path_factory.mktemp("writing") / "a.ckpt"
    cfg = make_config(*(f"model.{size}" for size in SIZES), "data.seq_len=16")
    tokenizer = learn_tokenizer(cfg.tokenizer, TEXTS).tokenizer
    return str(path), tokenizer, save_untrained(path, cfg, tokenizer)


@pytest.fixture
def write(model: Model, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs generate.py's config and `write` in this process; gives what went to standard output and error."""

    def run(**settings: object) -> tuple[str, str]:
        prompts.write(settled(ckpt=model[0], **settings))
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def settled(**settings: object) -> GenerateConfig:
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("generate")
    cfg.update(settings)
    return generate_config(cfg)


def typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """What stands on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))


# Prompts


def test_prompts_of_a_file_are_its_lines(write: Callable, tmp_path: Path) -> None:
    prompts = ['"The fog," said Wren', "The fox's end, {a: [b]} # ${c}", "  in"]
    path = tmp_path / "prompts, mine.txt"
    path.write_bytes("\ufeff{}\n\n{}\r\n \n{}".format(*prompts).encode())
    out, err = write(prompt_file=str(path), format="json", max_new_tokens=3)
    written = [json.loads(line) for line in out.splitlines()]
    assert [sample["prompt"] for sample in written] == prompts
    assert all(sample["text"].startswith(sample["prompt"]) for sample in written)
    assert "read as <UNK>: 's" in err
    [seed] = {sample["seed"] for sample in written}
    assert f"seed={seed}" in err
    # A prompt of a file is no other than one of the command line.
    alone, _ = write(prompt=prompts[0], seed=seed, max_new_tokens=3)
    assert alone == written[0]["text"] + "\n"


def test_prompts_come_from_standard_input(write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, b'The fog\n"The fox,"\n')
    out, _ = write(prompt_file="-", max_new_tokens=2, seed=1)
    first, second = (line for line in out.splitlines() if line.startswith(("The fog", '"The fox,"')))
    assert len(first) > len("The fog")
    assert len(second) > len('"The fox,"')


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, "generate.prompts_not_readable", "No such file or directory"),
        (b"\n \n", "generate.no_prompt", ""),
        (b"fog\ncaf\xe9\n", "generate.wrong_encoding", "line 2 is not UTF-8"),
    ],
)
def test_prompts_that_cannot_be_read(
    content: bytes | None, code: str, said: str, write: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with refused(code, f"prompt_file={path}", said):
        write(prompt_file=str(path))


def test_unknown_words_and_long_prompts_are_named(write: Callable) -> None:
    out, err = write(prompt="The axolotl sat on the axolotl's fox", max_new_tokens=1)
    assert "not in the model's vocabulary, read as <UNK>: axolotl on 's\n" in err
    assert "of which" not in err
    out, err = write(prompt="the fog " * 30 + "sat", max_new_tokens=20)
    assert "the prompt has 61 tokens, of which the network sees the last 16" in err
    assert out.startswith("the fog " * 30 + "sat")


def test_a_prompt_that_is_no_text_is_borne(write: Callable) -> None:
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as it is outside of pytest
    out, _ = write(prompt="fog \udcff", max_new_tokens=2)
    assert out.startswith("fog ?")


# What comes out


def test_json_holds_everything(write: Callable, model: Model) -> None:
    path, tokenizer, net = model
    out, _ = write(prompt="The fog", num_samples=3, seed=7, format="json", max_new_tokens=8, temperature=1.5)
    samples = [json.loads(line) for line in out.splitlines()]
    assert [sample["sample"] for sample in samples] == [1, 2, 3]
    for sample in samples:
        assert (sample["ckpt"], sample["seed"], sample["prompt"]) == (path, 7, "The fog")
        token_ids = [tokenizer.vocabulary.tokens.index(token) for token in sample["tokens"]]
        before = [tokenizer.vocabulary.eos_id, *tokenizer.encode("The fog").tolist()]
        with torch.no_grad():
            logits = net(torch.tensor([[*before, *token_ids]]))[0].log_softmax(-1)
        expected = [logits[len(before) - 1 + place, token_id].item() for place, token_id in enumerate(token_ids)]
        assert sample["log_probs"] == pytest.approx(expected, abs=1e-4)
    text, _ = write(prompt="The fog", num_samples=3, seed=7, max_new_tokens=8, temperature=1.5)
    assert text == "".join(f"\n--- {sample['sample']} ---\n{sample['text']}\n" for sample in samples)


def test_the_seed_is_said_and_gives_the_samples_again(write: Callable) -> None:
    drawn = [write(prompt="The", temperature=1.5) for _ in range(2)]
    assert drawn[0][0] != drawn[1][0]
    for out, err in drawn:
        seed = int(err.partition("seed=")[2])
        assert write(prompt="The", temperature=1.5, seed=seed)[0] == out


def test_samples_are_printed_while_they_grow(
    write: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: Model,
) -> None:
    """The first one token by token, with the second's beginning waiting for its turn."""
    the, fog, fox, sat, eos = (
        model[1].vocabulary.tokens.index(token) for token in ("The", "fog", "fox", "sat", "<EOS>")
    )
    seen = []

    def steps(*_: object) -> Iterator[Step]:
        for step in ([the, fog], [fox, sat], [eos, fox], [eos, sat]):
            yield Step(step, [-1.0, -1.0])
            seen.append(capsys.readouterr().out)

    monkeypatch.setattr("hp_lightning.inference.generate.generate", steps)
    write(prompt="", num_samples=2)
    assert seen == ["\n--- 1 ---\nThe", " fox", "\n\n--- 2 ---\nfog sat fox", " sat"]


def test_more_samples_than_memory_holds_are_refused(write: Callable) -> None:
    with refused("machine.out_of_memory", "num_samples=100000000 ", " GiB "):
        write(prompt="the fog", num_samples=100_000_000)


def test_standard_input_that_is_closed_is_an_empty_one(model: Model, tmp_path: Path) -> None:
    line = shlex.join(command("generate.py", f"ckpt={model[0]}", "prompt_file=-"))
    done = subprocess.run(f"{line} <&-", shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    expect_line(done.stderr.splitlines()[-1], "generate.no_prompt", "prompt_file=- ")


# A session


def test_a_session_goes_from_prompt_to_prompt(write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, b"The fog\n\nThe fox\n")
    out, err = write(interactive=True, max_new_tokens=4, seed=5, temperature=0)
    first, rest, other = out.splitlines()
    once, _ = write(prompt="The fog", max_new_tokens=8, temperature=0)
    assert once == f"{first}{rest}\n", "an empty line goes on with the text"
    assert other.startswith("The fox")
    assert [f"seed={seed}" in err for seed in (4, 5, 6, 7, 8)] == [False, True, True, True, False]


def test_ctrl_c_ends_what_a_session_is_writing(write: Callable, monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    def stopped(*arguments: object) -> Iterator[list[Sample]]:
        for count, samples in enumerate(stream(*arguments)):  # type: ignore[arg-type]
            yield samples
            if count == 1:
                raise KeyboardInterrupt

    typed(monkeypatch, b"The fog\nThe fox\n")
    monkeypatch.setattr(loaded, "stream", stopped)
    out, _ = write(interactive=True, temperature=0, max_new_tokens=50)
    assert [line[:7] for line in out.splitlines()] == ["The fog", "The fox"], "what was written stays, and it goes on"


# A process


@pytest.mark.parametrize("ending", ["Ctrl-C", "closed pipe"])
def test_an_early_end_is_no_error(ending: str, model: Model, tmp_path: Path) -> None:
    settings = ["max_new_tokens=1000000", "num_samples=3", "temperature=0"]
    process = launch(tmp_path, "generate.py", f"ckpt={model[0]}", 'prompt="The fog," said', *settings)
    assert process.stdout is not None
    assert process.stderr is not None
    head = process.stdout.read(100)
    assert '"The fog," said' in head, "it is there before the end"
    if ending == "Ctrl-C":
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "--- 3 ---" in head + out, "all that was written is shown"
        assert out.endswith("\n")
        [line] = err.splitlines()[1:]
        expect_line(line, "cli.interrupted", "SIGINT")
    else:
        process.stdout.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
        assert len(process.stderr.read().splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_has_no_room_is_one_line(model: Model, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_program(tmp_path, "generate.py", f"ckpt={model[0]}", "prompt=The fog", stdout=full)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()[1:]  # behind the one that tells the seed
    expect_line(line, "output.stdout", "No space left on device")


# Values out of range


@pytest.mark.parametrize(
    ("settings", "code", "named"),
    [
        ({"temperature": -1}, "config.out_of_range", ["temperature=-1.0 "]),
        ({"temperature": 0.001}, "config.out_of_range", ["temperature=0.001 ", "0.01"]),
        ({"temperature": math.nan}, "config.out_of_range", ["temperature=nan "]),
        ({"temperature": math.inf}, "config.out_of_range", ["temperature=inf "]),
        ({"temperature": 1e300}, "config.out_of_range", ["temperature=1e+300 ", "from 0.01 to 100"]),
        ({"top_k": 0}, "config.out_of_range", ["top_k=0 "]),
        ({"top_p": 0}, "config.out_of_range", ["top_p=0.0 "]),
        ({"min_p": 1.1}, "config.out_of_range", ["min_p=1.1 "]),
        ({"repetition_penalty": 0}, "config.out_of_range", ["repetition_penalty=0.0 "]),
        ({"repetition_penalty": 1e-40}, "config.out_of_range", ["repetition_penalty=1e-40 "]),
        ({"num_samples": 0}, "config.out_of_range", ["num_samples=0 "]),
        ({"max_new_tokens": 0}, "config.out_of_range", ["max_new_tokens=0 "]),
        ({"seed": -1}, "config.out_of_range", ["seed=-1 "]),
        ({"seed": 99999999999}, "config.out_of_range", ["seed=99999999999 "]),
        ({"format": "xml"}, "config.unknown_choice", ["format=xml ", "text, json"]),
        ({"prompt_file": ""}, "config.empty", ["prompt_file "]),
        ({"prompt_file": "a", "prompt": "b"}, "config.conflict", ["prompt_file and prompt "]),
        ({"prompt_file": "a", "interactive": True}, "config.conflict", ["prompt_file and interactive "]),
        ({"ckpt": ""}, "config.empty", ["ckpt "]),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, object], code: str, named: list[str]) -> None:
    with refused(code, *named):
        settled(**settings)
