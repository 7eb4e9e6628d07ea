"""Compile what a training step computes; train without where that fails."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch._functorch.config as functorch
from torch import Tensor
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from hp_lightning.common.console import log
from hp_lightning.common.errors import reason


def keep_compiled_in(folder: Path) -> None:
    """Keep what is compiled in a folder, for a second start to be quick; PyTorch's own is emptied with /tmp.

    Read by PyTorch when it first compiles; a folder that the person has chosen stays. (Importing Lightning sets the
    variable to PyTorch's own.) Without the second setting the loss, an `autograd.Function`, is traced and
    differentiated again in every process, which takes 3 s; the key has the code of its backward pass, too.
    """
    usual = default_cache_dir()
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", usual) == usual:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    functorch.autograd_cache_allow_custom_autograd_functions = True  # type: ignore[assignment]
    functorch.force_non_lazy_backward_lowering = True  # what cannot be compiled is found in the first call, not later


def compiled(function: Callable[..., Tensor], device_type: str) -> Callable[..., Tensor]:
    """The function, compiled for the shapes of its first call.

    Where it or its gradient cannot be compiled, the reason is logged once, and from then on the function itself is
    called.

    Args:
        device_type: of the arguments; on a processor ("cpu") the random numbers stay PyTorch's own
    """
    fast = torch.compile(function, dynamic=False, options={"fallback_random": True} if device_type == "cpu" else None)
    works = True

    @functools.wraps(function)
    def call(*arguments: object) -> Tensor:
        nonlocal works
        if works:
            try:
                return fast(*arguments)
            except Exception as error:
                if not _is_of_the_compiler(error):
                    raise
                works = False
                log.warning("compiling failed; training without (trainer.compile=false): %s", reason(error))
        return function(*arguments)

    return call


def _is_of_the_compiler(error: Exception) -> bool:
    """Whether compiling failed, not what was compiled."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
