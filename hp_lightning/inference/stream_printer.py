"""Samples on standard output, while they grow."""

import json
import sys
from abc import ABC, abstractmethod
from typing import Any

from hp_lightning.inference.generate import Sample


class SamplePrinter(ABC):
    """Prints samples one after the other; those that grow at the same time wait for their turn."""

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
    """The prompt and what follows."""

    def __init__(self, prompt: str, num_samples: int) -> None:
        super().__init__()
        self._prompt = prompt
        self._is_one_of_several = num_samples > 1
        self._printed: int | None = None  # characters of the sample

    def _print(self, sample: Sample, finished: bool) -> None:
        if self._printed is None:
            if self._is_one_of_several:
                print(f"\n--- {self._done + 1} ---")
            print(end=self._prompt)
            self._printed = 0
        print(end=sample.text[self._printed :])
        self._printed = len(sample.text)
        if finished:
            print()
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
            facts = {
                "sample": self._done + 1,
                "text": self._facts["prompt"] + sample.text,
                "tokens": [self._vocabulary[token_id] for token_id in sample.token_ids],
                "log_probs": [round(log_prob, 6) for log_prob in sample.log_probs],
            }
            print(json.dumps({**self._facts, **facts}, ensure_ascii=False))
