"""What `hp-lightning generate` does: a trained model writes."""

import itertools
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from hp_lightning.common.errors import InputError
from hp_lightning.common.run_dir import find_checkpoint
from hp_lightning.inference.generate import Sample, sampling
from hp_lightning.inference.model import Model
from hp_lightning.inference.stream_printer import JsonPrinter, SamplePrinter, TextPrinter
from hp_lightning.schema.generate import GenerateConfig
from hp_lightning.tokenizers import unknown_tokens

STANDARD_INPUT = "-"


def write(cfg: GenerateConfig) -> None:
    """Print `num_samples` continuations of each prompt, as they come.

    Raises:
        InputError: there is no such checkpoint, or the file is none; the prompts cannot be read
    """
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a prompt may hold bytes that are no text
    path = find_checkpoint(cfg.ckpt)
    prompts = iter([cfg.prompt]) if cfg.prompt_file is None else _prompts(cfg.prompt_file)
    first = next(prompts)  # a file that cannot be read is told before a model is loaded
    writer = Writer(path, cfg)
    seed = writer.sampling.seed
    if cfg.interactive:
        print(f"{path}: type a prompt and press Enter (empty line: continue; Ctrl-D: quit)", file=sys.stderr)
        _converse(writer, first, seed)
        return
    print(f"{path}, seed={seed}", file=sys.stderr)
    for prompt in itertools.chain([first], prompts):
        writer.continue_(prompt, seed)


def _prompts(prompt_file: str) -> Iterator[str]:
    """The lines of the file that hold anything, as they are read."""
    count = 0
    try:
        with nullcontext(sys.stdin.buffer) if prompt_file == STANDARD_INPUT else Path(prompt_file).open("rb") as file:
            for prompt in _lines(file, prompt_file):
                count += 1
                yield prompt
    except OSError as error:
        raise InputError(
            "generate.prompts_not_readable",
            f"prompt_file={prompt_file} cannot be read ({error.strerror}): name a text file",
        ) from error
    if not count:
        raise InputError(
            "generate.no_prompt", f"prompt_file={prompt_file} holds no prompt: it should have one in each line"
        )


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                "generate.wrong_encoding", f"prompt_file={name}, line {number} is not UTF-8: save the file as UTF-8"
            ) from error
        if text.strip():
            yield text


def _converse(writer: "Writer", prompt: str, seed: int) -> None:
    """Ask for prompts until there are no more; Ctrl-C ends what is being written, or else the session."""
    with suppress(ImportError):
        import readline  # noqa: F401  lines can be edited, and brought back
    with suppress(EOFError):
        while True:
            prompt = prompt or _typed()
            print(f"seed={seed}", file=sys.stderr)
            with suppress(KeyboardInterrupt):
                writer.continue_(prompt, seed) if prompt else writer.go_on(seed)
            prompt, seed = "", (seed + 1) % 2**32


def _typed() -> str:
    line = input("> " if sys.stdin.isatty() else "")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "generate.wrong_encoding", "a line of standard input is not UTF-8: save what is piped in as UTF-8"
        ) from error
    return line


class Writer:
    """A trained model that writes to standard output."""

    def __init__(self, path: Path, cfg: GenerateConfig) -> None:
        self._model = Model.load(path)
        self._as_json = cfg.format == "json"
        self.sampling = sampling(cfg)
        self._text = ""  # the last sample, with its prompt

    def continue_(self, prompt: str, seed: int) -> None:
        """Continue a prompt, which is shown as it was typed."""
        self._write(prompt, prompt, seed)

    def go_on(self, seed: int) -> None:
        """Continue the last text, which is not shown again."""
        self._write(self._text, "", seed)

    def _write(self, prompt: str, shown: str, seed: int) -> None:
        typed, prompt = prompt, unicodedata.normalize("NFC", prompt)  # as the corpus is
        self._warn_about(prompt)
        printer: SamplePrinter = TextPrinter(shown, self.sampling.num_samples)
        if self._as_json:
            facts = {"ckpt": str(self._model.path), "seed": seed, "prompt": typed}
            printer = JsonPrinter(facts, self._model.tokenizer.vocabulary.tokens)
        how = replace(self.sampling, seed=seed)
        samples: list[Sample] = []
        try:
            for samples in self._model.stream(prompt, how):
                printer.show(samples)
        finally:  # Ctrl-C, too, ends with what was written
            printer.show(samples, complete=True)
            self._text = typed + samples[-1].text if samples else typed

    def _warn_about(self, prompt: str) -> None:
        unknown = unknown_tokens(self._model.tokenizer, prompt)
        if unknown:
            print(f"not in the model's vocabulary, read as <UNK>: {' '.join(unknown)}", file=sys.stderr)
        length = len(self._model.tokenizer.tokens(prompt))
        if length > self._model.context:
            print(
                f"the prompt has {length:,} tokens, of which the network sees the last {self._model.context:,}",
                file=sys.stderr,
            )
