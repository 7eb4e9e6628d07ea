"""A network for decoding: what a token costs is reading every weight, and half as many bytes are read in half the time.

Weights are kept in float16, which has 11 significant bits; what they are multiplied with, and the sums, stay in
float32. On a processor PyTorch's float32 products with a single row also use one core only (benchmarks/LOG.md).
"""

import torch
from torch import Tensor, nn

from hp_lightning.model import GPT


class HalfLinear(nn.Module):
    """A linear layer whose weights were rounded to float16, by FBGEMM (Khudia et al. 2021, arXiv:2101.05615)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.quantized.linear_prepack_fp16(linear.weight, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), in float32."""
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return out


def halve_weights(net: GPT) -> GPT:
    """Puts a `HalfLinear` in the place of every linear layer, where the processor has FBGEMM; without gradients."""
    if "fbgemm" in torch.backends.quantized.supported_engines:
        for module in list(net.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, HalfLinear(child))
    return net
