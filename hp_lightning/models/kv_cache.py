"""What attention keeps of the tokens that the network has read: each is read once.

It is for decoding, without gradients. Shapes: B sequences, H heads, T tokens, D features of a head.
"""

from torch import Tensor


class LayerCache:
    """Keys and values of one layer, in memory of a fixed size: (B, H, capacity, D) each.

    Args:
        memory: (2, B, H, capacity, D)
    """

    def __init__(self, memory: Tensor) -> None:
        self.length = 0  # tokens that were read
        self._keys, self._values = memory.unbind()

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of further tokens, (B, H, T, D) each; return those of all tokens, (B, H, length, D) each.

        Raises:
            RuntimeError: there is no room for them
        """
        count = key.shape[2]
        self._keys.narrow(2, self.length, count).copy_(key)
        self._values.narrow(2, self.length, count).copy_(value)
        self.length += count
        return self._keys.narrow(2, 0, self.length), self._values.narrow(2, 0, self.length)


class KVCache:
    """The keys and values of all layers (Pope et al. 2022, arXiv:2211.05102, section 3.3).

    Args:
        memory: (layers, 2, B, H, capacity, D)
    """

    def __init__(self, memory: Tensor) -> None:
        self.capacity = memory.shape[4]
        self.layers = [LayerCache(of_layer) for of_layer in memory.unbind()]

    @property
    def length(self) -> int:
        """Tokens that every layer has read."""
        return self.layers[-1].length

    def clear(self) -> None:
        """Forget every token; the memory stays."""
        for layer in self.layers:
            layer.length = 0
