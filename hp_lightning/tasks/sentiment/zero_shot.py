"""From a text to the log-odds of a positive sentiment, by the words that a language model expects next."""

from dataclasses import dataclass

from torch import Tensor

from hp_lightning.common.errors import InputError
from hp_lightning.models.gpt import GPT
from hp_lightning.tasks.sentiment.next_words import known_words, next_word_log_probs, word_ids
from hp_lightning.tokenizers import Tokenizer


@dataclass(frozen=True)
class WordLists:
    """The words that are weighed against each other, those that the model knows."""

    positive: list[str]
    negative: list[str]

    @classmethod
    def known_to(cls, tokenizer: Tokenizer, positive: list[str], negative: list[str]) -> "WordLists":
        """The words of two lists that are in the vocabulary.

        Raises:
            InputError: none of a list is
        """
        known = {"positive": known_words(tokenizer, positive), "negative": known_words(tokenizer, negative)}
        for name, words in known.items():
            if not words:
                raise InputError(
                    "sentiment.unknown_words",
                    f"none of the {name} words is in the model's vocabulary: name others by {name}=[...], or train on "
                    "text that has them",
                )
        return cls(**known)


class NextWordReader:
    """Weighs the probability of positive against that of negative words after a text (step 15 of the course).

    With `calibrated`, from the logarithm of a word's probability after the text and the template that of its
    probability after the template alone is subtracted: what is left is how much the text speaks for the word, however
    common it is (contextual calibration, Zhao et al. 2021, arXiv:2102.09690; domain conditional PMI, Holtzman et al.
    2021, arXiv:2104.08315). Every word of a list then has an equal say: the mean over the list is taken, not the sum
    of the probabilities, in which the commonest words would drown the others.

    Args:
        template: follows the text, and is followed by the words
        context: tokens that the network looks back
    """

    def __init__(
        self, net: GPT, tokenizer: Tokenizer, words: WordLists, template: str, calibrated: bool, context: int
    ) -> None:
        self.calibrated = calibrated
        self._net = net
        self._tokenizer = tokenizer
        self._template = template
        self._context = context
        self._split = len(words.positive)
        self._words = [word_ids(tokenizer, word) for word in [*words.positive, *words.negative]]
        self._without_text = self._log_probs([""]) if calibrated else None

    def log_odds(self, texts: list[str]) -> Tensor:
        """log (p / (1 - p)) of a positive sentiment: (texts,) in float64."""
        log_probs = self._log_probs(texts)
        if self._without_text is None:
            positive, negative = self._of_lists(log_probs)
            return positive - negative
        evidence = log_probs - self._without_text
        return evidence[:, : self._split].mean(dim=1) - evidence[:, self._split :].mean(dim=1)

    def probabilities(self, text: str) -> tuple[float, float]:
        """That the next word after a text is one of the positive, and one of the negative ones."""
        positive, negative = self._of_lists(self._log_probs([text]))
        return float(positive.exp()), float(negative.exp())

    def _of_lists(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        return log_probs[:, : self._split].logsumexp(dim=1), log_probs[:, self._split :].logsumexp(dim=1)

    def _log_probs(self, texts: list[str]) -> Tensor:
        """(texts, words), the positive words first."""
        return next_word_log_probs(
            self._net,
            [context_ids(self._tokenizer, text, self._template) for text in texts],
            self._words,
            self._context,
        )


def context_ids(tokenizer: Tokenizer, text: str, template: str) -> list[int]:
    """What the network reads: a document that begins with the text, and goes on with the template."""
    return [tokenizer.vocabulary.eos_id, *tokenizer.encode(f"{text.strip()} {template}".strip()).tolist()]
