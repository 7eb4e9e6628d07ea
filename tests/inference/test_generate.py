"""Decoding: how a token is chosen, what the network sees, where a sample ends, and what becomes of the prompt."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hp_lightning.inference.fast_decoding import optimize_for_inference
from hp_lightning.inference.generate import Sampling, continue_text, generate, stream
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.model import ModelConfig
from hp_lightning.schema.regularization import RegularizationConfig
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.tokenizers import Tokenizer, learn_tokenizer

EOS = 1
GREEDY = Sampling(temperature=0, max_new_tokens=20)
PURE = Sampling(temperature=1, top_k=None, top_p=None, max_new_tokens=20)
SENTENCES = ["The cat sat. The dog sat. The cat ran.", "The dog ran."]


class Bigram(nn.Module):
    """Logits that stand in a table, one row for each token before; notes what it was given."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding.from_pretrained(table)
        self.logits = nn.Identity()
        self.cfg = SimpleNamespace(vocab_size=len(table))
        self.inputs: list[list[list[int]]] = []

    def new_cache(self, batch_size: int, capacity: int) -> SimpleNamespace:
        return SimpleNamespace(clear=lambda: None)

    def features(self, token_ids: Tensor, cache: SimpleNamespace) -> Tensor:
        self.inputs.append(token_ids.tolist())
        return self.token_embedding(token_ids)


def chain(size: int, *steps: tuple[int, int], unwritable: tuple[int, ...] = ()) -> Bigram:
    """A network that goes from token to token along the steps; what may not be written it would like best."""
    table = torch.full((size, size), -100.0)
    for before, after in steps:
        table[before, after] = 0.0
    table[:, list(unwritable)] = 100.0
    return Bigram(table)


SMALL = ModelConfig(
    vocab_size=13, d_model=16, num_heads=2, num_layers=2, d_ff=32, max_seq_len=6, position="learned", norm="layer",
    norm_position="pre", activation="gelu", bias=True, tie_embeddings=False, qk_norm=False,
)  # fmt: skip


def stirred(cfg: ModelConfig, std: float = 0.5) -> GPT:
    """A network whose weights are larger than initially, so that the tokens before make a difference."""
    torch.manual_seed(1)
    net = GPT(cfg, RegularizationConfig(0.5, 0.5, 0.5, 0.5, 0.0, None, None))
    for parameter in net.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=std)
    return net.eval()


@pytest.fixture
def gpt() -> GPT:
    return stirred(SMALL)


def without_cache(net: GPT, prompt_ids: list[int], context: int, count: int) -> list[int]:
    """Greedy decoding by the rule of the window alone; 0 is never written."""
    window, found = prompt_ids[-context:], []
    while len(found) < count:
        logits = net(torch.tensor([window]))[0, -1].tolist()
        found.append(max(range(1, len(logits)), key=logits.__getitem__))
        window = [*window, found[-1]]
        if len(window) > context:
            window = window[-max(context // 2, 1) :]
    return found


def continued(
    net: nn.Module, prompt_ids: list[int], eos_id: int, unwritable: list[int], context: int, sampling: Sampling
) -> list[list[int]]:
    """The new tokens of each sample, up to its end."""
    steps = [step.token_ids for step in generate(net, prompt_ids, eos_id, unwritable, context, sampling)]
    return [list(itertools.takewhile(lambda token_id: token_id != eos_id, ids)) for ids in zip(*steps, strict=True)]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    cfg = TokenizerConfig(kind="word", vocab_size=None, min_frequency=1, lowercase=False, from_run=None)
    return learn_tokenizer(cfg, SENTENCES).tokenizer


# The cache changes nothing


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_greedy_decoding_is_the_same_without_a_cache(
    position: str, norm: str, norm_position: str, qk_norm: bool
) -> None:
    """For prompts shorter and longer than the context, in a batch or alone, far past the context."""
    net = stirred(replace(SMALL, position=position, norm=norm, norm_position=norm_position, qk_norm=qk_norm))
    different: set[tuple[int, ...]] = set()
    for context, prompt_ids in ((6, [3]), (6, [3, 1, 4, 1, 5]), (6, [2, 7, 1, 8, 2, 8, 1]), (5, [9, 2, 6, 5, 3])):
        expected = without_cache(net, prompt_ids, context, 20)
        different.add(tuple(expected))
        for num_samples in (1, 3):
            sampling = replace(GREEDY, num_samples=num_samples)
            assert continued(net, prompt_ids, 0, [0], context, sampling) == [expected] * num_samples
    assert len(different) == 4
    assert len(set().union(*different)) > 2  # not one token over and over, which would be easy to hit


@pytest.mark.parametrize("context", [1, 2, 3, 4])
def test_greedy_decoding_with_the_smallest_windows(gpt: GPT, context: int) -> None:
    assert continued(gpt, [3, 1, 4], 0, [0], context, GREEDY) == [without_cache(gpt, [3, 1, 4], context, 20)]


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="for x86 processors")
@pytest.mark.parametrize(
    "form",
    [
        {"position": "rotary"},
        {"position": "rotary", "qk_norm": True, "tie_embeddings": True, "activation": "relu_squared", "norm": "rms"},
        {"position": "learned", "bias": False, "norm": "rms"},
        {"position": "sinusoidal", "norm_position": "post", "activation": "relu"},
        {"vocab_size": 2**16},  # its head runs on all cores
    ],
)
def test_optimized_network_has_rounded_weights_and_nothing_else(form: dict[str, Any]) -> None:
    cfg = replace(SMALL, **form)
    rounded, optimized = stirred(cfg), optimize_for_inference(stirred(cfg))
    for module in rounded.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.half().float())
    token_ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        assert_close(optimized(token_ids), rounded(token_ids), rtol=0, atol=1e-5)
        assert not torch.equal(optimized(token_ids), stirred(cfg)(token_ids))
        for prompt_ids in ([3], [2, 7, 1, 8, 2, 8, 1]):
            expected = without_cache(optimized, prompt_ids, 6, 20)
            assert continued(optimized, prompt_ids, 0, [0], 6, GREEDY) == [expected]


def test_window_begins_anew_with_its_last_half() -> None:
    net = chain(9, (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 2))
    assert continued(net, [8, 2], EOS, [], 4, replace(GREEDY, max_new_tokens=6)) == [[3, 4, 5, 6, 7, 8]]
    assert net.inputs == [[[8, 2]], [[3]], [[4]], [[4, 5]], [[6]], [[7]]]


def test_log_probabilities_are_the_network_s(gpt: GPT) -> None:
    """Not those of what it was cut down to."""
    sampling = Sampling(temperature=3.0, top_k=4, max_new_tokens=5, num_samples=2, seed=2, repetition_penalty=1.5)
    steps = list(generate(gpt, [3], 0, [0], 6, sampling))
    for sample in range(2):
        token_ids = [3, *(step.token_ids[sample] for step in steps)]
        expected = gpt(torch.tensor([token_ids]))[0].log_softmax(-1)[range(5), token_ids[1:]]
        assert_close(torch.tensor([step.log_probs[sample] for step in steps]), expected)


# How the next token is chosen


def test_seed_decides_the_samples(gpt: GPT) -> None:
    def samples(seed: int) -> list[list[int]]:
        return continued(gpt, [3], 0, [0], 6, replace(PURE, num_samples=3, seed=seed))

    first = samples(1)
    torch.manual_seed(99)  # no other source of chance has a say
    assert samples(1) == first
    assert samples(2) != first
    assert first[0] != first[1] != first[2]


def test_global_random_state_is_untouched(gpt: GPT) -> None:
    before = torch.get_rng_state()
    continued(gpt, [3], 0, [], 6, PURE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sampling", [GREEDY, PURE, Sampling(top_k=1), Sampling(top_p=0.01), Sampling(top_k=100)])
def test_unwritable_ids_never_appear(sampling: Sampling) -> None:
    table = torch.zeros(8, 8)
    table[:, [0, 5, 7]] = 50.0
    table[:, EOS] = -50.0
    (written,) = continued(Bigram(table), [2], EOS, [0, 5, 7], 4, sampling)
    assert len(written) == sampling.max_new_tokens
    assert set(written) <= {2, 3, 4, 6}


# Where a sample ends, and what the network sees


def test_eos_ends_a_sample_while_the_others_go_on() -> None:
    # Each token may end the sample or go on to the next; after the end everything would begin again.
    net = chain(8, (2, 3), (2, EOS), (3, 4), (3, EOS), (4, 5), (4, EOS), (5, 6), (6, 7), (7, 7), (EOS, 2))
    samples = continued(net, [2], EOS, [], 4, replace(PURE, max_new_tokens=6, num_samples=40))
    assert {tuple(sample) for sample in samples} == {(), (3,), (3, 4), (3, 4, 5, 6, 7, 7)}


def test_decoding_stops_when_every_sample_has_ended() -> None:
    net = chain(5, (2, 3), (3, EOS), (EOS, EOS))
    assert continued(net, [2], EOS, [], 4, Sampling(num_samples=3)) == [[3], [3], [3]]
    assert len(net.inputs) == 2


def test_eos_in_the_prompt_ends_nothing() -> None:
    net = chain(5, (EOS, 2), (2, 3), (3, EOS))
    assert continued(net, [EOS], EOS, [], 4, GREEDY) == [[2, 3]]


def test_length_is_max_new_tokens() -> None:
    net = chain(5, (2, 3), (3, 2))
    assert continued(net, [2], EOS, [], 4, Sampling(max_new_tokens=5)) == [[3, 2, 3, 2, 3]]


def test_only_the_last_tokens_matter(gpt: GPT) -> None:
    def after(*prompt: int) -> list[list[int]]:
        return continued(gpt, list(prompt), 0, [0], 4, PURE)

    # Longer than max_seq_len, too.
    assert after(2, 11, 12, 3, 1, 4, 5) == after(7, 8, 3, 1, 4, 5) == after(3, 1, 4, 5)
    assert after(2, 1, 4, 5) != after(3, 1, 4, 5)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_training_mode_restored(gpt: GPT, training: bool) -> None:
    expected = continued(gpt.eval(), [3], 0, [0], 6, GREEDY)
    assert continued(gpt.train(training), [3], 0, [0], 6, GREEDY) == expected
    assert all(module.training == training for module in gpt.modules())


# From text to text


def sat_network(words: Tokenizer, rows: int) -> Bigram:
    """Writes "The cat sat." if it may not write what it would rather: <UNK>, or a row that is no token."""
    the, cat, sat, stop = words.encode("The cat sat.")
    eos = words.vocabulary.eos_id
    steps = (eos, the), (the, cat), (cat, sat), (sat, stop), (stop, eos), (words.vocabulary.unk_id, cat)
    return chain(rows, *steps, unwritable=(words.vocabulary.unk_id, *range(len(words.vocabulary), rows)))


@pytest.mark.parametrize(
    ("prompt", "continuation"),
    [
        ("The", " cat sat."),
        ("The cat", " sat."),
        ("The  cat", " sat."),
        ("The cat sat", "."),
        ("", "The cat sat."),
        ("The cat sat.\nThe", " cat sat."),
        ('"Zounds!"  said  The', " cat sat."),  # unknown words, unusual spaces
        ("The axolotl", " cat sat."),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_text_is_the_prompt_as_typed_and_its_continuation(
    words: Tokenizer, prompt: str, continuation: str, temperature: float
) -> None:
    net = sat_network(words, rows=len(words.vocabulary) + 3)
    texts = continue_text(net, words, prompt, 32, Sampling(temperature, num_samples=2))
    assert texts == [prompt + continuation] * 2
    # As in training, a document begins after the end of another.
    assert net.inputs[0] == [[words.vocabulary.eos_id, *words.encode(prompt)]] * 2


@pytest.mark.parametrize("prompt", ["The cat", "An axolotl, unheard of,", ""])
def test_unk_is_never_written(words: Tokenizer, prompt: str) -> None:
    # With every token as likely as the next but <UNK>, which is the likeliest.
    table = torch.zeros(len(words.vocabulary), len(words.vocabulary))
    table[:, words.vocabulary.unk_id] = 10.0
    for text in continue_text(Bigram(table), words, prompt, 8, replace(PURE, max_new_tokens=30, num_samples=20)):
        assert text.startswith(prompt)
        assert "<UNK>" not in text
        assert "<EOS>" not in text


def test_a_sample_grows_by_whole_tokens_to_what_is_written(words: Tokenizer) -> None:
    net = sat_network(words, rows=len(words.vocabulary))
    grown = [samples[0].text for samples in stream(net, words, "The", 32, Sampling(temperature=0))]
    assert grown == [" cat", " cat sat", " cat sat.", " cat sat."]
    assert continue_text(net, words, "The", 32, Sampling(temperature=0)) == ["The" + grown[-1]]


def test_eos_has_a_log_probability_and_ends_a_sample(words: Tokenizer) -> None:
    table = torch.zeros(len(words.vocabulary), len(words.vocabulary))
    *_, samples = stream(Bigram(table), words, "The", 32, replace(PURE, max_new_tokens=200, num_samples=5))
    for sample in samples:
        assert sample.ended
        assert sample.token_ids.index(words.vocabulary.eos_id) == len(sample.token_ids) - 1
        assert sample.log_probs == pytest.approx([-math.log(len(table))] * len(sample.token_ids))


def test_repetition_counts_the_prompt_and_the_sample_but_not_the_document_s_begin(words: Tokenizer) -> None:
    """With every token equally likely greedy decoding takes what has not been there, until only <EOS> is left."""
    size = len(words.vocabulary)
    table = torch.ones(size, size)
    table[:, words.vocabulary.eos_id] = 0.9
    sampling = replace(GREEDY, repetition_penalty=2.0)
    *_, [sample] = stream(Bigram(table), words, "The cat", 32, sampling)
    *written, last = sample.token_ids
    assert last == words.vocabulary.eos_id
    assert sorted([*written, *words.encode("The cat")]) == list(range(2, size))
