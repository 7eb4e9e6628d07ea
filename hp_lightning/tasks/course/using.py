"""Steps 14 and 15: the model writes, and is asked for the sentiment of a text."""

from dataclasses import dataclass, replace

from hp_lightning.common.errors import InputError
from hp_lightning.inference.generate import Sampling, continue_text
from hp_lightning.schema.course import CourseConfig
from hp_lightning.tasks.course.subject import Subject
from hp_lightning.tasks.sentiment.classify import verdict
from hp_lightning.tasks.sentiment.rows import as_in_corpus
from hp_lightning.tasks.sentiment.zero_shot import NextWordReader, WordLists
from hp_lightning.tokenizers import unknown_tokens
from hp_lightning.tokenizers.base import labels

TEMPERATURES = (0.5, 1.0, 1.5)  # of the table
LIKELIEST = 6
PROMPT = 6  # tokens of the passage
NEW_TOKENS = 60
SETTINGS = (
    ("temperature 0: greedy decoding", Sampling(temperature=0.0)),
    ("temperature 0.8", Sampling(temperature=0.8, top_p=None)),
    ("temperature 1.3: bolder", Sampling(temperature=1.3, top_p=None)),
    ("temperature 0.8 and top_p 0.95, as hp-lightning generate writes", Sampling()),
)
# The course's example, and one that says the opposite.
REVIEWS = ("The movie was fantastic and entertaining.", "The movie was terrible and boring.")


@dataclass(frozen=True)
class Written:
    """What the model wrote."""

    how: str
    prompt: str
    text: str  # behind the prompt


@dataclass(frozen=True)
class Review:
    """A text, and what the model expects behind it."""

    text: str
    unknown: list[str]  # tokens of it that are read as <UNK>
    positive: float  # that one of the positive words comes next
    negative: float
    verdict: str
    confidence: float


@dataclass(frozen=True)
class Using:
    """What steps 14 and 15 show."""

    next_tokens: list[tuple[str, list[float]]]  # the likeliest behind the passage, by temperature
    samples: list[Written]
    words: WordLists | None
    reviews: list[Review]
    no_sentiment: str  # why there are none


def look_at_use(subject: Subject, cfg: CourseConfig) -> Using:
    """Samples of a fixed seed, and the sentiment of the course's example."""
    try:
        words = WordLists.known_to(subject.tokenizer, cfg.positive, cfg.negative)
    except InputError as error:
        return Using(_next_tokens(subject), _samples(subject, cfg.seed), None, [], str(error))
    return Using(_next_tokens(subject), _samples(subject, cfg.seed), words, _reviews(subject, words), "")


def _next_tokens(subject: Subject) -> list[tuple[str, list[float]]]:
    logits = subject.inside.logits[-1]
    by_temperature = [(logits / temperature).softmax(dim=0) for temperature in TEMPERATURES]
    order = logits.argsort(descending=True, stable=True)[:LIKELIEST].tolist()
    names = labels(subject.tokenizer, order)
    return [(name, [float(p[i]) for p in by_temperature]) for name, i in zip(names, order, strict=True)]


def _samples(subject: Subject, seed: int) -> list[Written]:
    tokenizer, context = subject.tokenizer, subject.trained.cfg.data.seq_len
    beginning = subject.passage.token_ids[:PROMPT]
    known = tokenizer.vocabulary.unk_id not in beginning and subject.passage.origin != "model"
    prompt = tokenizer.decode(beginning) if known else ""
    samples = []
    for how, sampling in SETTINGS:
        chosen = replace(sampling, max_new_tokens=NEW_TOKENS, seed=seed)
        [text] = continue_text(subject.net, tokenizer, prompt, context, chosen)
        samples.append(Written(how, prompt, text.removeprefix(prompt)))
    return samples


def _reviews(subject: Subject, words: WordLists) -> list[Review]:
    data = subject.trained.cfg.data
    reader = NextWordReader(subject.net, subject.tokenizer, words, "", calibrated=False, context=data.seq_len)
    verdicts = []
    for text in REVIEWS:
        read = as_in_corpus(text, data)
        [log_odds] = reader.log_odds([read])
        probability = float(log_odds.sigmoid())
        positive, negative = reader.probabilities(read)
        unknown = unknown_tokens(subject.tokenizer, read)
        confidence = max(probability, 1 - probability)
        verdicts.append(Review(text, unknown, positive, negative, verdict(probability), confidence))
    return verdicts
