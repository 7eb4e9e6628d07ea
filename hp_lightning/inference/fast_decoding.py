"""A network made ready for decoding, where a token costs reading every weight, and the calls (benchmarks/LOG.md).

Half as many bytes are read in half the time: matrices are kept in float16, which has 11 significant bits; what they are
multiplied with, and the sums, stay in float32. And in a small network finding and calling its modules takes as long as
what they compute: modules and weights become plain functions and attributes.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hp_lightning.models.gpt import GPT

ALL_CORES_FROM = 2**19  # weights of a matrix: what a second core saves of a smaller one, calling it costs


def optimize_for_inference(net: GPT) -> GPT:
    """Make decoding faster, in place; what is computed changes by rounding alone. There are no gradients any more."""
    net.eval()
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and "fbgemm" in torch.backends.quantized.supported_engines:
                delattr(module, name)
                _attach(module, name, _half_linear(child))
            elif not isinstance(child, nn.Embedding | nn.ModuleList):  # these are used as what they are
                _attach(module, name, child.forward)
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            _attach(module, name, tensor.detach())
    return net


def _attach(module: nn.Module, name: str, value: object) -> None:
    """As a plain attribute, which is found before what `nn.Module` keeps under the same name, and faster."""
    object.__setattr__(module, name, value)


def _half_linear(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """(..., in) to (..., out), by FBGEMM (Khudia et al. 2021, arXiv:2101.05615)."""
    weight = linear.weight.detach()
    if weight.numel() >= ALL_CORES_FROM:
        of_all_cores = torch.ops.quantized.linear_prepack_fp16(weight, linear.bias)
        multiply = torch.ops.quantized.linear_dynamic_fp16
        return lambda x: multiply(x, of_all_cores)
    bias = weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are deprecated; pyproject.toml admits no version without them
        packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
        torch.fbgemm_linear_fp16_weight(weight[:1], packed, bias)  # warns once
    return lambda x: torch.fbgemm_linear_fp16_weight(x, packed, bias)
