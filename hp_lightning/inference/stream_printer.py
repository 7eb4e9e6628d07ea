"""Samples on standard output, while they grow."""

import json
import re
import shutil
import sys
from abc import ABC, abstractmethod
from typing import Any, TextIO

from hp_lightning.inference.generate import Sample

LINE_LENGTH = 80
PARTS = re.compile(r"\n| +|[^ \n]+")


class SamplePrinter(ABC):
    """Prints samples one after the other; those that grow beside the one that is being printed wait for their turn."""

    def __init__(self) -> None:
        self._done = 0

    def show(self, samples: list[Sample], complete: bool = False) -> None:
        """Print what is new.

        Args:
            complete: whether they grow no more
        """
        while self._done < len(samples):
            finished = complete or samples[self._done].ended
            self._print(samples[self._done], finished)
            if not finished:
                break
            self._done += 1
        sys.stdout.flush()

    @abstractmethod
    def _print(self, sample: Sample, finished: bool) -> None:
        """Print what is new of a sample."""


class TextPrinter(SamplePrinter):
    """The prompt and what follows; in a terminal in lines that are pleasant to read."""

    def __init__(self, prompt: str, num_samples: int) -> None:
        super().__init__()
        self._prompt = prompt
        self._is_one_of_several = num_samples > 1
        self._printed: int | None = None  # characters of the sample

    def _print(self, sample: Sample, finished: bool) -> None:
        if self._printed is None:
            if self._is_one_of_several:
                print(f"\n--- {self._done + 1} ---")
            self._lines = WrappedLines(sys.stdout) if sys.stdout.isatty() else Lines(sys.stdout)
            self._lines.write(self._prompt)
            self._printed = 0
        self._lines.write(sample.text[self._printed :])
        self._printed = len(sample.text)
        if finished:
            self._lines.finish()
            self._printed = None


class JsonPrinter(SamplePrinter):
    """An object per line for each sample; a token's log-probability is the network's own.

    Args:
        facts: what the samples have in common, `prompt` among it
        vocabulary: the tokens by their ids
    """

    def __init__(self, facts: dict[str, Any], vocabulary: list[str]) -> None:
        super().__init__()
        self._facts = facts
        self._vocabulary = vocabulary

    def _print(self, sample: Sample, finished: bool) -> None:
        if finished:
            own = {
                "sample": self._done + 1,
                "text": self._facts["prompt"] + sample.text,
                "tokens": [self._vocabulary[token_id] for token_id in sample.token_ids],
                "log_probs": [round(log_prob, 6) for log_prob in sample.log_probs],
            }
            print(json.dumps({**self._facts, **own}, ensure_ascii=False))


class Lines:
    """Text as it is."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> None:
        """Add text."""
        self._out.write(text)

    def finish(self) -> None:
        """End the last line."""
        self._out.write("\n")


class WrappedLines(Lines):
    """Text in lines that are broken between words; a word is shown once it is whole."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._width = min(LINE_LENGTH, shutil.get_terminal_size().columns)
        self._column = 0
        self._spaces = ""  # since the last word; where a line is broken they go
        self._word = ""  # it may go on

    def write(self, text: str) -> None:
        """Show the words that are whole with this text."""
        text, self._word = self._word + text, ""
        for part in PARTS.findall(text):
            self._show_word()
            if part == "\n":
                self._out.write(part)
                self._column, self._spaces = 0, ""
            elif part.startswith(" "):
                self._spaces += part
            else:
                self._word = part

    def finish(self) -> None:
        """Show the last word, and end the line."""
        self._show_word()
        super().finish()

    def _show_word(self) -> None:
        if not self._word:
            return
        before = self._spaces
        if self._column and self._column + len(before) + len(self._word) > self._width:
            self._column, before = 0, "\n"
        self._out.write(before + self._word)
        self._column += len(before.strip("\n")) + len(self._word)
        self._spaces = self._word = ""
