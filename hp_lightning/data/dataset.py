"""The corpus as a run uses it: read, split, tokenized, looked over; once, and from then on from the cache.

A split of the corpus is one stream of token ids, `<EOS>` before its first document and after each, so every
token of every document is predicted once.
"""

import dataclasses
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from hp_lightning.common.console import log, watched
from hp_lightning.common.failpoints import failpoint
from hp_lightning.data.cache import Arrays, Cache, digest, from_array, to_array
from hp_lightning.data.documents import Reading, read_documents
from hp_lightning.data.downloads import cache_folder
from hp_lightning.data.sources import Source, content_digest, find_sources
from hp_lightning.data.splits import Splits, split_documents
from hp_lightning.data.stats import CorpusFacts, SplitFacts, inspect
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.tokenizers import Learned, Tokenizer, learn_tokenizer, tokenizer_from_state

FORMAT = 4  # of what the cache holds; to be raised with every change of reading, splitting or tokenizing
# What does not touch which tokens a split has.
UNENCODED = {"path", "sha256", "cache_dir", "seq_len", "batch_size", "batch_tokens"}
VOCABULARY_SIZES = (1_000, 2_000, 5_000, 10_000, 20_000)

Stream = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Coverage:
    """Which share of a split's tokens a vocabulary of the training split's most common `size` tokens knows."""

    size: int
    known: dict[str, float]  # by split


@dataclass(frozen=True)
class DocumentFacts:
    """A document of a stream."""

    name: str
    characters: int


@dataclass(frozen=True)
class TokenizedCorpus:
    """A corpus in tokens."""

    tokenizer: Tokenizer
    streams: dict[str, Stream]  # by split: (tokens,)
    documents: dict[str, list[DocumentFacts]]  # by split, in the order of the stream
    facts: CorpusFacts
    coverage: list[Coverage]  # empty where nothing is ever `<UNK>`

    @cached_property
    def digest(self) -> str:
        """A digest that tells one corpus, as it was split and tokenized, from another."""
        digest = hashlib.sha256()
        for stream in self.streams.values():
            digest.update(stream.tobytes() + b"|")
        return digest.hexdigest()

    def unigram_loss(self, split: str) -> float:
        """Cross-entropy, in nats per token, of guessing each token by its frequency in the training split (add-one)."""
        return float(self.unigram_losses()[self.streams[split][1:]].mean())

    def unigram_losses(self) -> npt.NDArray[np.float64]:
        """The same for each token of the vocabulary: (tokens,)."""
        counts = np.bincount(self.streams["train"][1:], minlength=len(self.tokenizer.vocabulary)) + 1.0
        losses: npt.NDArray[np.float64] = -np.log(counts / counts.sum())
        return losses


def tokenize_corpus(cfg: DataConfig, tokenizer: TokenizerConfig | Tokenizer) -> TokenizedCorpus:
    """Encode the corpus, with a tokenizer that is learned from its training split or with one that is known already.

    Raises:
        InputError: the corpus cannot be read or split
    """
    return _Encoder(cfg, find_sources(cfg)).encoded(tokenizer)


class _Encoder:
    """Encodes one corpus; looks into the cache first."""

    def __init__(self, cfg: DataConfig, sources: list[Source]) -> None:
        self._cfg = cfg
        self._sources = sources
        self._cache = Cache(cache_folder(cfg) / "tokens")
        settings = {key: value for key, value in dataclasses.asdict(cfg).items() if key not in UNENCODED}
        versions = [version("nltk"), version("tokenizers")]
        self._key = digest(FORMAT, versions, content_digest(sources), settings)

    def encoded(self, tokenizer: TokenizerConfig | Tokenizer) -> TokenizedCorpus:
        if isinstance(tokenizer, TokenizerConfig):
            key = digest(self._key, dataclasses.asdict(tokenizer))
            learned = self._cache.load(key)
            if learned is None:
                return self._learn(tokenizer, key)
            state = learned["state"]
            tokenizer = tokenizer_from_state(from_array(state))
        else:
            state = to_array(tokenizer.state())
        arrays = self._cache.load(self._encoded_key(state))
        if arrays is not None:
            return _unpacked(arrays, tokenizer)
        reading, splits = self._read()
        texts = [document.text for document in splits.train]
        token_ids = [tokenizer.encode(text) for text in watched("tokenizing", texts)]
        counts = Counter(token for text in texts for token in tokenizer.tokens(text))
        return self._encode(reading, splits, Learned(tokenizer, token_ids, counts), state)

    def _learn(self, cfg: TokenizerConfig, key: str) -> TokenizedCorpus:
        reading, splits = self._read()
        learned = learn_tokenizer(cfg, [document.text for document in splits.train])
        state = to_array(learned.tokenizer.state())
        encoded = self._encode(reading, splits, learned, state)
        self._cache.store(key, {"state": state})
        return encoded

    def _read(self) -> tuple[Reading, Splits]:
        log.info("reading %s", self._cfg.path)
        failpoint("corpus.read")
        reading = read_documents(self._cfg, self._sources)
        return reading, split_documents(reading.documents, self._cfg)

    def _encode(
        self, reading: Reading, splits: Splits, learned: Learned, state: npt.NDArray[np.uint8]
    ) -> TokenizedCorpus:
        """Encode the splits that nothing is learned from, and measure all of them."""
        tokenizer = learned.tokenizer
        eos_id = tokenizer.vocabulary.eos_id
        streams = {"train": _stream(eos_id, learned.encoded)}
        counts = {"train": learned.counts}
        for split in ("val", "test"):
            texts = [document.text for document in getattr(splits, split)]
            streams[split] = _stream(eos_id, [tokenizer.encode(text) for text in texts])
            counts[split] = Counter(token for text in texts for token in tokenizer.tokens(text))
        coverage = [] if tokenizer.vocabulary.unk_id is None else _coverage(counts)
        documents = {
            split: [DocumentFacts(document.name, len(document.text)) for document in of_split]
            for split, of_split in vars(splits).items()
        }
        encoded = TokenizedCorpus(tokenizer, streams, documents, inspect(reading, splits), coverage)
        self._cache.store(self._encoded_key(state), _packed(encoded))
        return encoded

    def _encoded_key(self, state: npt.NDArray[np.uint8]) -> str:
        return digest(self._key, hashlib.sha256(state.tobytes()).hexdigest())


def _stream(eos_id: int, encoded: list[Stream]) -> Stream:
    eos = np.array([eos_id], np.int32)
    return np.concatenate([eos, *(piece for token_ids in encoded for piece in (token_ids, eos))])


def _coverage(counts: dict[str, Counter[str]]) -> list[Coverage]:
    """For the usual sizes of a vocabulary, and for one that knows every token of the training split."""
    rank = {token: rank for rank, (token, _) in enumerate(counts["train"].most_common())}
    sizes = [*(size for size in VOCABULARY_SIZES if size < len(rank)), len(rank)]
    known: dict[str, list[float]] = {}
    for split, counter in counts.items():
        ranks = np.array([rank.get(token, len(rank)) for token in counter], np.int64)
        weights = np.array(list(counter.values()), np.int64)
        known[split] = [float(weights[ranks < size].sum() / max(weights.sum(), 1)) for size in sizes]
    return [Coverage(size, {split: known[split][index] for split in counts}) for index, size in enumerate(sizes)]


def _packed(encoded: TokenizedCorpus) -> Arrays:
    findings = {
        "documents": {split: list(map(dataclasses.asdict, found)) for split, found in encoded.documents.items()},
        "facts": dataclasses.asdict(encoded.facts),
        "coverage": [dataclasses.asdict(row) for row in encoded.coverage],
    }
    return {**encoded.streams, "findings": to_array(findings)}


def _unpacked(arrays: Arrays, tokenizer: Tokenizer) -> TokenizedCorpus:
    findings = from_array(arrays.pop("findings"))
    facts = findings["facts"]
    facts["splits"] = {split: SplitFacts(**numbers) for split, numbers in facts["splits"].items()}
    facts |= {key: tuple(facts[key]) for key in ("longest", "shortest")}  # JSON made lists of them
    coverage = [Coverage(**row) for row in findings["coverage"]]
    documents = {split: [DocumentFacts(**facts) for facts in rows] for split, rows in findings["documents"].items()}
    return TokenizedCorpus(tokenizer, arrays, documents, CorpusFacts(**facts), coverage)
