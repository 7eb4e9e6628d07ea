"""How likely a language model finds words after a text."""

import torch
from torch import Tensor

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

    Nothing is divided, so that no word is too unlikely to be compared.

    Args:
        texts: the ids of each, `<EOS>` first; of one that is too long the beginning is left out
        words: the ids of each, at least one
        context: tokens that the network looks back

    Returns:
        (texts, words) in float64
    """
    found = torch.zeros(len(texts), len(words), dtype=torch.float64)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # so that little has to be filled up
    for first in range(0, len(order), BATCH_SIZE):
        places = order[first : first + BATCH_SIZE]
        batch = [texts[place] for place in places]
        for begun in dict.fromkeys(tuple(word[:-1]) for word in words):
            columns = [column for column, word in enumerate(words) if tuple(word[:-1]) == begun]
            found[places] += _log_probs(net, batch, list(begun), words, columns, context)
    return found


def _log_probs(
    net: GPT, texts: list[list[int]], begun: list[int], words: list[list[int]], columns: list[int], context: int
) -> Tensor:
    """The (texts, words) of the words `columns`, which differ in their last tokens alone; 0 for the others."""
    rows = [[*text, *begun][-context:] for text in texts]
    token_ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for place, row in enumerate(rows):  # filled up behind, where a causal network sees nothing of it
        token_ids[place, : len(row)] = torch.tensor(row)
    ends = torch.tensor([len(row) for row in rows])
    positions = (ends[:, None] - 1 - len(begun) + torch.arange(len(begun) + 1)).clamp(min=0)  # (texts, begun + 1)
    features = net.features(token_ids)[torch.arange(len(rows))[:, None], positions]
    log_probs = net.logits(features).double().log_softmax(dim=-1)
    of_beginning = log_probs[:, range(len(begun)), begun].sum(dim=1, keepdim=True)
    found = torch.zeros(len(rows), len(words), dtype=torch.float64)
    found[:, columns] = of_beginning + log_probs[:, -1, [words[column][-1] for column in columns]]
    return found
