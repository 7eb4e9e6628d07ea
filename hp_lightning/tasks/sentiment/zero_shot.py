"""From a text to the log-odds of a positive sentiment, by the words that a language model expects next."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hp_lightning.common.errors import InputError
from hp_lightning.models.gpt import GPT
from hp_lightning.tokenizers import Tokenizer

BATCH_SIZE = 64  # texts in a forward pass
BEFORE = "the"  # a word that others may follow, to see how they are written within a sentence


def word_ids(tokenizer: Tokenizer, word: str) -> list[int]:
    """The ids of a word, or several, as they follow another word; with the space between them where that is a token."""
    before = tokenizer.encode(BEFORE).tolist()
    together: list[int] = tokenizer.encode(f"{BEFORE} {word}").tolist()
    return together[len(before) :]


def known_words(tokenizer: Tokenizer, words: list[str]) -> list[str]:
    """Those of which every token is in the vocabulary."""
    unk_id = tokenizer.vocabulary.unk_id
    return [word for word in words if unk_id not in word_ids(tokenizer, word)]


@torch.inference_mode()
def next_word_log_probs(net: GPT, texts: list[list[int]], words: list[list[int]], context: int) -> Tensor:
    """log p(word | text), in nats, for every text and every word; a word's tokens are predicted one after the other.

    Nothing is divided, so even the least likely word can be compared.

    Args:
        texts: the ids of each, `<EOS>` first; one that is too long loses its start
        words: the ids of each, at least one
        context: tokens that the network looks back

    Returns:
        (texts, words) in float64
    """
    log_probs = torch.zeros(len(texts), len(words), dtype=torch.float64)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # to pad little
    for first in range(0, len(order), BATCH_SIZE):
        places = order[first : first + BATCH_SIZE]
        batch = [texts[index] for index in places]
        for prefix in dict.fromkeys(tuple(word[:-1]) for word in words):
            columns = [column for column, word in enumerate(words) if tuple(word[:-1]) == prefix]
            log_probs[places] += _log_probs(net, batch, list(prefix), words, columns, context)
    return log_probs


def _log_probs(
    net: GPT, texts: list[list[int]], prefix: list[int], words: list[list[int]], columns: list[int], context: int
) -> Tensor:
    """The (texts, words) of the words `columns`, which differ in their last tokens alone; 0 for the others."""
    rows = [[*text, *prefix][-context:] for text in texts]
    token_ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for index, row in enumerate(rows):  # filled up behind, where a causal network sees nothing of it
        token_ids[index, : len(row)] = torch.tensor(row)
    ends = torch.tensor([len(row) for row in rows])
    positions = (ends[:, None] - 1 - len(prefix) + torch.arange(len(prefix) + 1)).clamp(min=0)  # (texts, prefix + 1)
    features = net.features(token_ids)[torch.arange(len(rows))[:, None], positions]
    log_probs = net.logits(features).double().log_softmax(dim=-1)
    of_prefix = log_probs[:, range(len(prefix)), prefix].sum(dim=1, keepdim=True)
    by_word = torch.zeros(len(rows), len(words), dtype=torch.float64)
    by_word[:, columns] = of_prefix + log_probs[:, -1, [words[column][-1] for column in columns]]
    return by_word


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
    """What the network reads: a document of the text and the template."""
    return [tokenizer.vocabulary.eos_id, *tokenizer.encode(f"{text.strip()} {template}".strip()).tolist()]
