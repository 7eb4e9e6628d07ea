"""The label that a finetuned model writes after a text, and its log-odds."""

import torch
from torch import Tensor

from hp_lightning.common.errors import InputError
from hp_lightning.models.gpt import GPT
from hp_lightning.tasks.sentiment.zero_shot import context_ids, next_word_log_probs, word_ids
from hp_lightning.tokenizers import Tokenizer

MARK = "→"


class LabelReader:
    """Reads the label that networks expect behind a text.

    Args:
        nets: their log-odds are averaged
        labels: the words that stand for positive and for negative
        temperature: divides the log-odds, for the confidence to fit texts that were not learned
            (temperature scaling, Guo et al. 2017, arXiv:1706.04599)
        context: tokens that a network looks back
    """

    def __init__(
        self, nets: list[GPT], tokenizer: Tokenizer, labels: list[str], temperature: float, context: int
    ) -> None:
        self.nets = nets
        self.labels = labels
        self.temperature = temperature
        self._tokenizer = tokenizer
        self._context = context
        self._ids = label_ids(tokenizer, labels)

    def log_odds(self, texts: list[str]) -> Tensor:
        """log (p / (1 - p)) of a positive sentiment: (texts,) in float64."""
        contexts = [context_ids(self._tokenizer, text, MARK) for text in texts]
        by_net = [next_word_log_probs(net, contexts, self._ids, self._context) for net in self.nets]
        log_probs = torch.stack(by_net).mean(dim=0)
        return (log_probs[:, 0] - log_probs[:, 1]) / self.temperature


def label_ids(tokenizer: Tokenizer, labels: list[str]) -> list[list[int]]:
    """The ids of each label.

    Raises:
        InputError: the vocabulary lacks one
    """
    ids = [word_ids(tokenizer, word) for word in labels]
    unk_id = tokenizer.vocabulary.unk_id
    for word, its_ids in zip(labels, ids, strict=True):
        if unk_id in its_ids:
            raise InputError(
                "sentiment.label_not_in_vocabulary",
                f"the label {word!r} is not in the model's vocabulary: name two words that are by "
                "finetune.labels=[good,bad], or take a model with tokenizer=bpe",
            )
    return ids
