"""Step 16: the papers that the parts come from."""

from dataclasses import dataclass

from hp_lightning.schema.regularization import DROPOUT_PLACES
from hp_lightning.schema.train import TrainConfig

ARXIV = "https://arxiv.org/abs/"


@dataclass(frozen=True)
class Paper:
    """A paper, and whether the part that it describes is in the person's model."""

    part: str
    cited: str
    url: str
    is_yours: bool = True


def papers(cfg: TrainConfig) -> list[Paper]:
    """In the order of the steps: those of the course's choices and of the person's."""
    model, tokenizer = cfg.model, cfg.tokenizer
    return [
        Paper("byte-pair encoding", "Sennrich et al. 2016, Neural Machine Translation of Rare Words with Subword Units",
              f"{ARXIV}1508.07909", tokenizer.kind == "bpe"),
        Paper("tied embeddings", "Press & Wolf 2017, Using the Output Embedding to Improve Language Models",
              f"{ARXIV}1608.05859", model.tie_embeddings),
        Paper("attention, sinusoidal positions, the transformer", "Vaswani et al. 2017, Attention Is All You Need",
              f"{ARXIV}1706.03762"),
        Paper("learned positions", "Gehring et al. 2017, Convolutional Sequence to Sequence Learning",
              f"{ARXIV}1705.03122", model.position == "learned"),
        Paper("rotary positions", "Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding",
              f"{ARXIV}2104.09864", model.position == "rotary"),
        Paper("layer normalization", "Ba et al. 2016, Layer Normalization", f"{ARXIV}1607.06450",
              model.norm == "layer"),
        Paper("RMSNorm", "Zhang & Sennrich 2019, Root Mean Square Layer Normalization", f"{ARXIV}1910.07467",
              model.norm != "layer"),
        Paper("normalized queries and keys", "Henry et al. 2020, Query-Key Normalization for Transformers",
              f"{ARXIV}2010.04245", model.qk_norm),
        Paper("GELU", "Hendrycks & Gimpel 2016, Gaussian Error Linear Units (GELUs)", f"{ARXIV}1606.08415",
              model.activation == "gelu"),
        Paper("ReLU²", "So et al. 2021, Primer: Searching for Efficient Transformers for Language Modeling",
              f"{ARXIV}2109.08668", model.activation == "relu_squared"),
        Paper("dropout", "Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
              "https://jmlr.org/papers/v15/srivastava14a.html",
              any(map(cfg.regularization.rate, DROPOUT_PLACES))),
        Paper("pre-norm and post-norm", "Xiong et al. 2020, On Layer Normalization in the Transformer Architecture",
              f"{ARXIV}2002.04745"),
        Paper("Adam", "Kingma & Ba 2015, Adam: A Method for Stochastic Optimization", f"{ARXIV}1412.6980"),
        Paper("AdamW", "Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization", f"{ARXIV}1711.05101",
              cfg.optim.name != "adam"),
        Paper("Muon", "Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks",
              "https://kellerjordan.github.io/posts/muon/", cfg.optim.name == "muon"),
        Paper("nucleus sampling, top_p", "Holtzman et al. 2020, The Curious Case of Neural Text Degeneration",
              f"{ARXIV}1904.09751"),
    ]  # fmt: skip
