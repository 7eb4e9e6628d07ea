import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.errors import refused
from torch import Tensor

from hp_lightning.data.dataloader import IGNORED, Batch, EvalSequences, TrainSequences
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.data.dataset import tokenize_corpus
from hp_lightning.data.documents import read_documents
from hp_lightning.data.splits import Splits, split_documents
from hp_lightning.models import loss
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tokenizers import EOS, UNK, learn_tokenizer

SPLITS = ("train", "val", "test")
CHAR = TokenizerConfig(kind="char", vocab_size=None, min_frequency=1, lowercase=False, from_run=None)
MakeConfig = Callable[..., TrainConfig]
MakeModule = Callable[..., CorpusDataModule]

# Tokens of the stream, and how it is cut: exact multiples and remainders, one sequence, fewer sequences than a batch.
CUTS = [
    {"tokens": 1_001, "seq_len": 8, "batch_size": 4, "accumulate": 1},
    {"tokens": 1_000, "seq_len": 10, "batch_size": 6, "accumulate": 3},
    {"tokens": 501, "seq_len": 1, "batch_size": 32, "accumulate": 2},
    {"tokens": 65, "seq_len": 64, "batch_size": 32, "accumulate": 1},
    {"tokens": 100, "seq_len": 64, "batch_size": 1, "accumulate": 1},
    {"tokens": 60, "seq_len": 10, "batch_size": 32, "accumulate": 1},
    {"tokens": 60, "seq_len": 10, "batch_size": 32, "accumulate": 5},
    {"tokens": 75, "seq_len": 10, "batch_size": 2, "accumulate": 3},
]
each_cut = pytest.mark.parametrize("cut", CUTS, ids=lambda cut: "-".join(map(str, cut.values())))


def train_sequences(cut: dict[str, int], seed: int = 1) -> TrainSequences:
    """Windows of a stream in which every token is its own position."""
    stream = torch.arange(cut["tokens"], dtype=torch.int32)
    return TrainSequences(stream, cut["seq_len"], cut["batch_size"], seed, cut["accumulate"])


def epoch_of(loader: TrainSequences | EvalSequences) -> list[Batch]:
    return list(loader)


def positions(batches: list[Batch]) -> list[int]:
    """What is predicted in some batches, in the order in which it is served."""
    return [int(target) for _, targets in batches for target in targets.flatten()]


def as_lists(batches: list[Batch]) -> list[tuple[list[list[int]], list[list[int]]]]:
    return [(token_ids.tolist(), targets.tolist()) for token_ids, targets in batches]


@each_cut
def test_epoch_is_windows_without_overlap(cut: dict[str, int]) -> None:
    loader = train_sequences(cut)
    for _ in range(4):
        batches = epoch_of(loader)
        for token_ids, targets in batches:
            assert token_ids.dtype == targets.dtype == torch.int64
            assert token_ids.shape == targets.shape == (loader.batch_size, cut["seq_len"])
            assert torch.equal(targets, token_ids + 1)  # the stream's next token, since tokens are positions
            assert torch.equal(token_ids, token_ids[:, :1] + torch.arange(cut["seq_len"]))
        served = positions(batches)
        assert len(set(served)) == len(served)


@each_cut
def test_epoch_covers_the_stream_up_to_the_remainder(cut: dict[str, int]) -> None:
    cut = {**cut, "batch_size": 1, "accumulate": 1}  # no sequence is left out to fill a step
    loader = train_sequences(cut)
    for _ in range(4):
        served = sorted(positions(epoch_of(loader)))
        assert served == list(range(served[0], served[0] + len(served)))
        assert 1 <= served[0] <= cut["seq_len"]
        assert len(served) > cut["tokens"] - 1 - 2 * cut["seq_len"]


@pytest.mark.parametrize("tokens", [9, 12, 16, 17, 23, 100])
def test_every_token_is_learned_from_in_some_epoch(tokens: int) -> None:
    loader = train_sequences({"tokens": tokens, "seq_len": 8, "batch_size": 1, "accumulate": 1})
    served = {position for _ in range(200) for position in positions(epoch_of(loader))}
    assert sorted(set(range(1, tokens)) - served) == []


@each_cut
def test_length_is_constant_and_whole_steps(cut: dict[str, int]) -> None:
    loader = train_sequences(cut)
    lengths = [len(loader)]
    for _ in range(3):
        lengths += [len(epoch_of(loader)), len(loader)]
    assert len(set(lengths)) == 1
    assert lengths[0] >= 1
    assert lengths[0] % cut["accumulate"] == 0
    # Only what does not fill a step is left out.
    sequences = len(epoch_of(train_sequences({**cut, "batch_size": 1, "accumulate": 1})))
    assert 0 <= sequences - lengths[0] * loader.batch_size < loader.batch_size * cut["accumulate"]


def test_order_is_drawn_by_seed_and_epoch() -> None:
    def order(seed: int, epochs: int) -> list[list[int]]:
        loader = train_sequences(CUTS[0], seed)
        return [positions(epoch_of(loader)) for _ in range(epochs)]

    one, other = order(1, 3), order(2, 3)
    assert one == order(1, 3)
    assert all(a != b for a, b in itertools.combinations([*one, *other], 2))
    assert one[0] != sorted(one[0])


@each_cut
@pytest.mark.parametrize("place", ["beginning", "first batch", "middle", "epoch end", "next epoch", "two epochs"])
def test_restored_loader_goes_on_like_the_unbroken_one(cut: dict[str, int], place: str) -> None:
    unbroken = train_sequences(cut)
    length = len(unbroken)
    expected = as_lists([batch for _ in range(4) for batch in epoch_of(unbroken)])
    served = {
        "beginning": 0,
        "first batch": 1,
        "middle": length // 2,
        "epoch end": length,
        "next epoch": length + 1,
        "two epochs": 2 * length,
    }[place]
    broken = train_sequences(cut)
    endless = itertools.chain.from_iterable(iter(lambda: broken, None))
    assert as_lists(list(itertools.islice(endless, served))) == expected[:served]
    restored = train_sequences(cut)
    restored.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    assert len(restored) == length
    rest_of_epoch = as_lists(epoch_of(restored))
    assert len(rest_of_epoch) == length - served % length
    assert rest_of_epoch + as_lists(epoch_of(restored)) == expected[served : served + len(rest_of_epoch) + length]


@pytest.mark.parametrize("tokens", [9, 10, 16])
def test_one_window_is_enough(tokens: int) -> None:
    loader = train_sequences({"tokens": tokens, "seq_len": 8, "batch_size": 32, "accumulate": 1})
    assert len(loader) == 1
    [(token_ids, _)] = loader
    assert token_ids.shape == (1, 8)


def test_fewer_windows_than_a_batch_are_one_batch() -> None:
    loader = train_sequences({"tokens": 41, "seq_len": 8, "batch_size": 32, "accumulate": 1})
    [(token_ids, _)] = loader
    assert 4 <= len(token_ids) <= 5


@pytest.mark.parametrize(("tokens", "accumulate"), [(9, 2), (41, 6)])
def test_refuses_too_few_sequences_for_a_step(tokens: int, accumulate: int) -> None:
    with refused("data.too_few_sequences", f"trainer.accumulate_grad_batches={accumulate}:"):
        train_sequences({"tokens": tokens, "seq_len": 8, "batch_size": 4, "accumulate": accumulate})


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("seq_len", [1, 7, 10, 64])
@pytest.mark.parametrize("tokens", [2, 65, 71, 72])
def test_evaluation_sees_every_token_once_in_order(tokens: int, seq_len: int, batch_size: int) -> None:
    stream = torch.randint(1_000, (tokens,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    loader = EvalSequences(stream, seq_len, batch_size)
    batches = epoch_of(loader)
    assert as_lists(batches) == as_lists(epoch_of(loader))
    assert len(batches) == len(loader)
    assert all(len(token_ids) == len(targets) <= batch_size for token_ids, targets in batches)
    token_ids = torch.cat([token_ids for token_ids, _ in batches])
    targets = torch.cat([targets for _, targets in batches])
    assert token_ids.dtype == targets.dtype == torch.int64
    assert token_ids.shape == targets.shape == (math.ceil((tokens - 1) / seq_len), seq_len)
    counts = targets != IGNORED
    assert targets[counts].tolist() == stream[1:].tolist()
    # The true token before each, and before that all of the sequence in its order: only the end is filled up.
    assert token_ids[counts].tolist() == stream[:-1].tolist()
    assert counts.flatten().tolist() == [True] * (tokens - 1) + [False] * (counts.numel() - tokens + 1)
    assert set(token_ids.flatten().tolist()) <= set(stream.tolist())  # what fills up is a token, too


def test_ignored_is_what_cross_entropy_ignores() -> None:
    assert torch.nn.CrossEntropyLoss().ignore_index == loss.IGNORED == IGNORED


@pytest.fixture(scope="module")
def make_module(make_config: MakeConfig) -> MakeModule:
    def make(*overrides: str, path: Path | None = None) -> CorpusDataModule:
        cfg = make_config(*overrides)
        data = replace(cfg.data, batch_size=cfg.data.batch_size or 32, path=str(path or cfg.data.path))
        return CorpusDataModule(replace(cfg, data=data))

    return make


@pytest.fixture(scope="module")
def stories(make_module: MakeModule) -> CorpusDataModule:
    """The bundled corpus as a plain run has it."""
    return make_module()


@pytest.fixture(scope="module")
def splits(stories: CorpusDataModule) -> Splits:
    """The documents of each split."""
    return split_documents(read_documents(stories.cfg).documents, stories.cfg)


@pytest.fixture(scope="module")
def part_tokens(stories: CorpusDataModule, splits: Splits) -> dict[str, list[str]]:
    """The tokens of each split, as text."""
    return {
        split: [
            token for document in getattr(splits, split) for token in [*stories.tokenizer.tokens(document.text), EOS]
        ]
        for split in SPLITS
    }


def test_vocabulary_is_learned_from_the_training_documents_alone(
    stories: CorpusDataModule, part_tokens: dict[str, list[str]]
) -> None:
    counts = Counter(part_tokens["train"])
    kept = {token for token, count in counts.items() if count >= 2 and token != EOS}
    assert set(stories.tokenizer.vocabulary.tokens) == {UNK, EOS} | kept
    assert set(part_tokens["val"]) - kept - {EOS}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
def test_streams_are_the_parts(make_module: MakeModule, splits: Splits, kind: str, split: str) -> None:
    module = make_module(f"tokenizer={kind}")
    eos_id = module.tokenizer.vocabulary.eos_id
    expected = [eos_id]
    for document in getattr(splits, split):
        expected += [*module.tokenizer.encode(document.text).tolist(), eos_id]
    assert module.streams[split].tolist() == expected
    assert not module.streams[split].is_floating_point()
    assert module.num_tokens(split) == len(expected) - 1
    assert module.num_characters(split) == sum(len(document.text) for document in getattr(splits, split))


@pytest.mark.parametrize("split", SPLITS)
def test_stream_tells_the_tokens(stories: CorpusDataModule, part_tokens: dict[str, list[str]], split: str) -> None:
    vocabulary = stories.tokenizer.vocabulary
    words = set(vocabulary.tokens)
    known = [token if token in words else UNK for token in part_tokens[split]]
    assert [vocabulary.tokens[token_id] for token_id in stories.streams[split].tolist()] == [EOS, *known]


def test_training_windows_are_of_the_training_part(stories: CorpusDataModule) -> None:
    loader, cfg = stories.train_dataloader(), stories.cfg
    assert len(loader) == stories.steps_per_epoch
    assert stories.tokens_per_step == cfg.batch_size * cfg.seq_len
    # Fewer than two sequences at the ends and one batch are left out.
    left_out = stories.num_tokens("train") - stories.steps_per_epoch * stories.tokens_per_step
    assert 0 <= left_out < 2 * cfg.seq_len + stories.tokens_per_step
    stream = stories.streams["train"].long()
    sequences = {tuple(sequence.tolist()) for sequence in stream.unfold(0, cfg.seq_len + 1, 1)}
    token_ids, targets = next(iter(loader))
    assert token_ids.shape == (cfg.batch_size, cfg.seq_len)
    assert all(tuple(sequence.tolist()) in sequences for sequence in torch.cat([token_ids, targets[:, -1:]], dim=1))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_windows_are_of_their_part(stories: CorpusDataModule, split: str) -> None:
    loader: EvalSequences = getattr(stories, f"{split}_dataloader")()
    targets: list[Tensor] = [targets[targets != IGNORED] for _, targets in loader]
    assert torch.cat(targets).tolist() == stories.streams[split][1:].tolist()


def test_steps_are_made_of_accumulated_batches(make_module: MakeModule) -> None:
    one = make_module("tokenizer=char", "data.batch_size=12")
    three = make_module("tokenizer=char", "data.batch_size=4", "trainer.accumulate_grad_batches=3")
    assert three.tokens_per_step == one.tokens_per_step == 12 * one.cfg.seq_len
    assert three.steps_per_epoch == one.steps_per_epoch == len(three.train_dataloader()) / 3


@pytest.mark.parametrize("split", SPLITS)
def test_unk_rate_by_counting(stories: CorpusDataModule, part_tokens: dict[str, list[str]], split: str) -> None:
    vocabulary = set(stories.tokenizer.vocabulary.tokens)
    unknown = sum(token not in vocabulary for token in part_tokens[split])
    assert unknown > 0
    assert stories.unk_rate(split) == pytest.approx(unknown / len(part_tokens[split]), rel=1e-12)


@pytest.mark.parametrize("split", SPLITS)
def test_unigram_loss_by_counting(stories: CorpusDataModule, split: str) -> None:
    predicted = {split: stories.streams[split].tolist()[1:] for split in SPLITS}
    counts = Counter(predicted["train"])
    total = len(predicted["train"]) + len(stories.tokenizer.vocabulary)
    losses = [-math.log((counts[token_id] + 1) / total) for token_id in predicted[split]]
    assert stories.unigram_loss(split) == pytest.approx(math.fsum(losses) / len(losses), rel=1e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_bits_per_char_of_a_uniform_guess(
    stories: CorpusDataModule, splits: Splits, part_tokens: dict[str, list[str]], split: str
) -> None:
    choices = len(stories.tokenizer.vocabulary)
    length = sum(len(document.text) for document in getattr(splits, split))
    bits = len(part_tokens[split]) * math.log2(choices) / length
    assert stories.bits_per_char(split, math.log(choices)) == pytest.approx(bits, rel=1e-12)


def test_bits_per_char_counts_eos(make_module: MakeModule, splits: Splits) -> None:
    module = make_module("tokenizer=char")
    length, documents = module.num_characters("val"), len(splits.val)
    assert module.bits_per_char("val", math.log(2)) == pytest.approx((length + documents) / length, rel=1e-12)


def test_known_tokenizer_is_not_learned_anew(make_config: MakeConfig) -> None:
    cfg = make_config()
    known = learn_tokenizer(CHAR, ["abcdefghijklmnopqrstuvwxyz ."]).tokenizer
    module = CorpusDataModule(cfg, tokenize_corpus(cfg.data, known))
    assert module.tokenizer is known
    assert int(module.streams["train"].max()) < len(known.vocabulary)
    assert module.unk_rate("val") > 0


@pytest.mark.parametrize("length", [62, 63, 200])
def test_short_corpus_needs_one_window(make_module: MakeModule, tmp_path: Path, length: int) -> None:
    # With <EOS>, a training split of 63 characters has the 64 tokens of one sequence.
    path = tmp_path / "mine.csv"
    path.write_text(f"text,chapter\n{'a' * 10},1\n{'b' * length},2\n")
    arguments = ["tokenizer=char", "data.split=documents", "data.test_fraction=0", "data.seq_len=64"]
    if length < 63:
        with refused("data.too_short", "63 tokens", "data.seq_len=64:"):
            make_module(*arguments, path=path)
        return
    module = make_module(*arguments, path=path)
    assert module.num_tokens("train") == length + 1
    assert len(epoch_of(module.train_dataloader())) == module.steps_per_epoch == 1
