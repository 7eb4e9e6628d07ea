"""What `results.py` trains: corpora, sweeps over the presets, and nanoGPT beside them."""

from dataclasses import dataclass, field

RATES = {
    "half": ("optim.lr=0.003", "optim.muon_lr=0.0075"),
    "preset": ("optim.lr=0.006", "optim.muon_lr=0.015"),
    "double": ("optim.lr=0.012", "optim.muon_lr=0.03"),
}


@dataclass(frozen=True)
class NanoGPT:
    """nanoGPT on the tokens and in the size of our runs."""

    dropout: float
    settings: tuple[str, ...]  # of train.py: they say what the size is
    minutes: float = 0.0  # of training; where steps are given, no bound
    steps: int | None = None
    validations: int = 20


@dataclass(frozen=True)
class Plan:
    """A corpus, and what is trained on it."""

    title: str
    corpus: tuple[str, ...]  # settings of train.py, the same for all its runs
    about: str
    sweeps: dict[str, tuple[str, ...]]  # by name, what train.py -m is told besides
    nanogpt: dict[str, NanoGPT] = field(default_factory=dict)


def plans(data: str) -> dict[str, Plan]:
    """By name; `data` is the folder in which state_union.csv, tinyshakespeare.csv and two_million.csv lie."""
    state_union = (f"data.path={data}/state_union.csv", "data.group_columns=[president,year]", "model=small")
    shakespeare = ("experiment=shakespeare_char", f"data.path={data}/tinyshakespeare.csv")
    return {
        "bundled": Plan(
            title="The bundled stories",
            corpus=("logger=csv",),
            about="Words, 69,000 to learn from. `make train` is `model=tiny regularization=strong optim=muon`. Where "
            "there is one seed, differences of 0.01 say nothing.",
            sweeps={
                "small": ("model=small", "max_epochs=6", "regularization=none,strong"),
                "presets": ("regularization=strong,none,light", "optim=muon"),
                "adamw": ("regularization=strong,none", "optim=adamw"),
                "seeds": ("regularization=strong,none", "optim=muon", "seed=2,3"),
                "no_dropout": ("regularization=strong", "regularization.dropout=0"),
                "no_decay": ("regularization=strong", "regularization.weight_decay=0"),
                "usual_decay": ("regularization=strong", "regularization.weight_decay=0.1"),
            },
        ),
        "widths": Plan(
            title="The presets' rates by width",
            corpus=("logger=csv", "max_steps=60", "trainer.val_every_steps=60"),
            about="The bundled stories and `model=tiny`, made wider; 60 steps. At each width the rates of "
            "`optim=muon`, which are 0.006 and 0.015 at all of them, and both halved and doubled.",
            sweeps={
                f"{width}_{name}": (f"model.d_model={width}", f"model.d_ff={4 * width}", *rates)
                for width in (128, 256, 512, 768)
                for name, rates in RATES.items()
            },
        ),
        "two_million": Plan(
            title="The presets' rates on two million words",
            corpus=(
                f"data.path={data}/two_million.csv",
                "data.group_columns=[source,document]",
                "model=small",
                "max_steps=200",
                "max_epochs=null",
                "trainer.val_every_steps=100",
                "logger=csv",
            ),
            about="`model=small`, 200 steps, a fifth of an epoch. two_million.csv is yours to make, with the columns "
            "text, source and document; here it was the King James Bible, Debian's fortune cookies and all of the "
            "other corpora.",
            sweeps={**RATES},
        ),
        "state_union": Plan(
            title="Speeches: state_union.csv",
            corpus=(*state_union, "max_epochs=null", "logger=csv"),
            about="Words, 294,146 to learn from; `model=small`, the size in which nanoGPT was run, with dropout 0.1 "
            "and steps of 32 sequences; ours are of the presets' 16.",
            sweeps={
                "sixth": ("max_steps=160", "regularization=none", "trainer.val_every_steps=40"),
                "full": ("max_steps=900", "regularization=strong", "trainer.val_every_steps=60"),
                "overfit": ("max_steps=900", "regularization=none", "trainer.val_every_steps=60"),
                "light": ("max_steps=900", "regularization=light", "trainer.val_every_steps=60"),
                "adamw": ("max_steps=900", "regularization=strong", "optim=adamw", "trainer.val_every_steps=60"),
                "narrow": (
                    "model.d_model=128",
                    "model.d_ff=512",
                    "max_steps=900",
                    "regularization=strong,none",
                    "trainer.val_every_steps=60",
                ),
            },
            nanogpt={"nanoGPT": NanoGPT(0.1, state_union, minutes=20)},
        ),
        "tinyshakespeare": Plan(
            title="Verse: tinyshakespeare.csv",
            corpus=(*shakespeare, "logger=csv"),
            about="Characters; nanoGPT's laptop network, 4 layers, 4 heads, d_model 128, context 64, batch 12.",
            sweeps={
                "quarter": ("max_steps=272", "trainer.val_every_steps=136"),
                "same": ("max_steps=1080", "optim=muon,adamw", "trainer.val_every_steps=216"),
                "preset": ("max_steps=2000",),
                "regularized": ("max_steps=2000", "regularization=light,strong"),
            },
            nanogpt={"nanoGPT": NanoGPT(0.0, shakespeare, steps=2000, validations=10)},
        ),
    }
