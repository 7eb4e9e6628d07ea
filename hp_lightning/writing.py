"""What `generate.py` does: a trained model writes."""

import sys
import textwrap
import unicodedata

from hp_lightning import checkpoint, runs
from hp_lightning.config import GenerateConfig
from hp_lightning.generation import Sampling, continue_text

LINE_LENGTH = 80
QUOTES = {"``": '"', "''": '"'}  # NLTK's signs for them


def write(cfg: GenerateConfig) -> None:
    """Prints `num_samples` continuations of the prompt.

    Raises:
        InputError: there is no such checkpoint, or the file is none
    """
    path = runs.find_checkpoint(cfg.ckpt)
    trained = checkpoint.load(path)
    tokenizer = trained.tokenizer
    prompt = unicodedata.normalize("NFC", cfg.prompt)  # as the corpus is
    unknown = [QUOTES.get(token, token) for token in tokenizer.vocabulary.unknown(tokenizer.tokens(prompt))]
    if unknown:
        print(f"not in the model's vocabulary, read as <UNK>: {' '.join(unknown)}", file=sys.stderr)
    sampling = Sampling(cfg.temperature, cfg.top_k, cfg.top_p, cfg.max_new_tokens, cfg.num_samples, cfg.seed)
    samples = continue_text(trained.net(), tokenizer, prompt, trained.cfg.data.seq_len, sampling)
    print(f"{path}, seed={cfg.seed}", file=sys.stderr)
    for number, sample in enumerate(samples, start=1):
        if len(samples) > 1:
            print(f"\n--- {number} ---")
        print(_wrapped(sample) if sys.stdout.isatty() else sample)


def _wrapped(text: str) -> str:
    """Lines that are pleasant to read in a terminal."""
    wrap = textwrap.TextWrapper(LINE_LENGTH, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(line) for line in text.split("\n"))
