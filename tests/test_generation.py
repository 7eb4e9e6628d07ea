"""Decoding: which tokens stay possible, how one is drawn, where a sample ends, and what becomes of the prompt."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hp_lightning.config import ModelConfig, RegularizationConfig, TokenizerConfig
from hp_lightning.generation import Sampling, continue_text, generate, keep_top_k, keep_top_p
from hp_lightning.model import GPT
from hp_lightning.tokenization import Tokenizer, learn_tokenizer

EOS = 1
GREEDY = Sampling(temperature=0, max_new_tokens=20)
PURE = Sampling(temperature=1, top_k=None, top_p=None, max_new_tokens=20)
SENTENCES = ["The cat sat. The dog sat. The cat ran.", "The dog ran."]


class Bigram(nn.Module):
    """Logits that stand in a table, one row for each token before; notes what it was given."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.cfg = SimpleNamespace(vocab_size=len(table))
        self.inputs: list[list[list[int]]] = []

    def forward(self, token_ids: Tensor) -> Tensor:
        self.inputs.append(token_ids.tolist())
        return self.table[token_ids]


def chain(size: int, *steps: tuple[int, int]) -> Bigram:
    """A network that goes from token to token along the steps and nowhere else."""
    table = torch.full((size, size), -100.0)
    for before, after in steps:
        table[before, after] = 0.0
    return Bigram(table)


@pytest.fixture
def gpt() -> GPT:
    torch.manual_seed(1)
    sizes = {"vocab_size": 13, "d_model": 16, "num_heads": 2, "num_layers": 2, "d_ff": 32, "max_seq_len": 6}
    form = {"position": "learned", "norm": "layer", "norm_position": "pre", "activation": "gelu"}
    cfg = ModelConfig(**sizes, **form, bias=True, tie_embeddings=False, qk_norm=False)
    net = GPT(cfg, RegularizationConfig(0.5, 0.5, 0.5, 0.5, 0.0, None, None))
    for parameter in net.parameters():
        if parameter.dim() == 2:  # larger than initially, so that the tokens before make a difference
            nn.init.normal_(parameter, std=0.5)
    return net.eval()


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    cfg = TokenizerConfig(kind="word", vocab_size=None, min_frequency=1, lowercase=False, from_run=None)
    return learn_tokenizer(cfg, SENTENCES).tokenizer


# Which tokens stay possible


@pytest.mark.parametrize("k", [1, 2, 5, 9, 10, 11, 1000])
def test_top_k_keeps_the_k_likeliest(k: int) -> None:
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(k))
    for row, kept in zip(logits.tolist(), keep_top_k(logits, k).tolist(), strict=True):
        likeliest = sorted(row, reverse=True)[:k]
        assert kept == [logit if logit in likeliest else -math.inf for logit in row]


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_top_p_keeps_the_fewest_likeliest_that_reach_p(p: float) -> None:
    logits = 2 * torch.randn(50, 10, generator=torch.Generator().manual_seed(1))
    for row, kept in zip(logits.tolist(), keep_top_p(logits, p).tolist(), strict=True):
        total = sum(math.exp(logit) for logit in row)
        nucleus: set[float] = set()
        for logit in sorted(row, reverse=True):
            if sum(math.exp(other) for other in nucleus) < p * total:
                nucleus.add(logit)
        assert kept == [logit if logit in nucleus else -math.inf for logit in row]
        assert max(kept) == max(row)  # the likeliest always stays


def test_top_p_of_one_keeps_every_token() -> None:
    # However unlikely: in single precision their probabilities vanish beside the first one's.
    logits = torch.tensor([[30.0, 20.0, 10.0, 0.0, 5.0]])
    assert torch.equal(keep_top_p(logits, 1.0), logits)


# How the next token is chosen


def test_temperature_zero_is_greedy(gpt: GPT) -> None:
    token_ids = [3, 1, 4]
    expected: list[int] = []
    while len(expected) < 20:
        logits = gpt(torch.tensor([[*token_ids, *expected][-6:]]))[0, -1].tolist()
        expected.append(max((token_id for token_id in range(13) if token_id != 0), key=logits.__getitem__))
    assert len(set(expected)) > 2  # not one token over and over, which would be easy to hit
    assert generate(gpt, token_ids, 0, [0], 6, GREEDY) == [expected]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "possible"),
    [
        (1.0, None, None, 5),
        (0.5, None, None, 5),
        (2.0, None, None, 5),
        (1.0, 3, None, 3),
        (1.0, None, 0.7, 2),
        (2.0, None, 0.7, 3),  # a higher temperature first flattens what top_p then cuts
    ],
)
def test_samples_are_distributed_as_softmax(
    temperature: float, top_k: int | None, top_p: float | None, possible: int
) -> None:
    logits = [2.0, 1.2, 0.4, -0.4, -1.2]  # from likely to unlikely, for `possible`
    net = Bigram(torch.tensor(logits).expand(5, 5).clone())
    sampling = Sampling(temperature, top_k, top_p, max_new_tokens=1, num_samples=20_000, seed=3)
    drawn = [sample[0] for sample in generate(net, [0], eos_id=9, unwritable=[], context=4, sampling=sampling)]
    weights = [math.exp(logit / temperature) for logit in logits[:possible]]
    for token_id in range(5):
        expected = weights[token_id] / sum(weights) if token_id < possible else 0.0
        # Four standard deviations are at most 0.0142.
        assert drawn.count(token_id) / 20_000 == pytest.approx(expected, abs=0.0142 if expected else 0)


def test_seed_decides_the_samples(gpt: GPT) -> None:
    def samples(seed: int) -> list[list[int]]:
        return generate(gpt, [3], 0, [0], 6, Sampling(1.0, None, None, 20, num_samples=3, seed=seed))

    first = samples(1)
    torch.manual_seed(99)  # no other source of chance has a say
    assert samples(1) == first
    assert samples(2) != first
    assert first[0] != first[1] != first[2]


def test_global_random_state_is_untouched(gpt: GPT) -> None:
    before = torch.get_rng_state()
    generate(gpt, [3], 0, [], 6, PURE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sampling", [GREEDY, PURE, Sampling(top_k=1), Sampling(top_p=0.01), Sampling(top_k=100)])
def test_unwritable_ids_never_appear(sampling: Sampling) -> None:
    table = torch.zeros(8, 8)
    table[:, [0, 5, 7]] = 50.0
    table[:, EOS] = -50.0
    (written,) = generate(Bigram(table), [2], EOS, [0, 5, 7], 4, sampling)
    assert len(written) == sampling.max_new_tokens
    assert set(written) <= {2, 3, 4, 6}


# Where a sample ends, and what the network sees


def test_eos_ends_a_sample_while_the_others_go_on() -> None:
    # Each token may end the sample or go on to the next; after the end everything would begin again.
    net = chain(8, (2, 3), (2, EOS), (3, 4), (3, EOS), (4, 5), (4, EOS), (5, 6), (6, 7), (7, 7), (EOS, 2))
    samples = generate(net, [2], EOS, [], 4, Sampling(1.0, None, None, max_new_tokens=6, num_samples=40))
    assert {tuple(sample) for sample in samples} == {(), (3,), (3, 4), (3, 4, 5, 6, 7, 7)}


def test_decoding_stops_when_every_sample_has_ended() -> None:
    net = chain(5, (2, 3), (3, EOS), (EOS, EOS))
    assert generate(net, [2], EOS, [], 4, Sampling(num_samples=3)) == [[3], [3], [3]]
    assert len(net.inputs) == 2


def test_eos_in_the_prompt_ends_nothing() -> None:
    net = chain(5, (EOS, 2), (2, 3), (3, EOS))
    assert generate(net, [EOS], EOS, [], 4, GREEDY) == [[2, 3]]


def test_length_is_max_new_tokens() -> None:
    net = chain(5, (2, 3), (3, 2))
    assert generate(net, [2], EOS, [], 4, Sampling(max_new_tokens=5)) == [[3, 2, 3, 2, 3]]


def test_only_the_last_tokens_matter(gpt: GPT) -> None:
    def continued(*prompt: int) -> list[list[int]]:
        return generate(gpt, list(prompt), 0, [0], 4, PURE)

    # Longer than max_seq_len, too.
    assert continued(2, 11, 12, 3, 1, 4, 5) == continued(7, 8, 3, 1, 4, 5) == continued(3, 1, 4, 5)
    assert continued(2, 1, 4, 5) != continued(3, 1, 4, 5)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_training_mode_restored(gpt: GPT, training: bool) -> None:
    expected = generate(gpt.eval(), [3], 0, [0], 6, GREEDY)
    assert generate(gpt.train(training), [3], 0, [0], 6, GREEDY) == expected
    assert all(module.training == training for module in gpt.modules())


# From text to text


def sat_network(words: Tokenizer, rows: int) -> Bigram:
    """Writes "The cat sat." if it may not write what it would rather: <UNK>, or a row that is no token."""
    the, cat, sat, stop = words.encode("The cat sat.")
    eos = words.vocabulary.eos_id
    net = chain(rows, (eos, the), (the, cat), (cat, sat), (sat, stop), (stop, eos), (words.vocabulary.unk_id, cat))
    with torch.no_grad():
        net.table[:, [words.vocabulary.unk_id, *range(len(words.vocabulary), rows)]] = 100.0
    return net


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
    for text in continue_text(Bigram(table), words, prompt, 8, Sampling(1.0, None, None, 30, num_samples=20)):
        assert text.startswith(prompt)
        assert "<UNK>" not in text
        assert "<EOS>" not in text
