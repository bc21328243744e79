"""Windows that are shorter than the memory they are decoded from, beside longer ones.

Cross-attention's tensors have as many positions as the longest window of those that are decoded together. Another fills
the first of them, and the rest gets no attention: there the keys' sums, which are taken from the queries' products
(byte_kv.py), are NOTHING. Which bytes lie there does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What is left of a product without it is -1e30, as float32 has it: products are below 2 ** 24. It is then multiplied by
# a query's scale, TINY or more: -1e22 or less. So Softmax sees a score beside which any other is large, and the weight
# is less than 1e-38, of which the byte is 0, and which adds nothing to the sum of the others, 1 or more. A scale above
# 3e8 makes the score -inf, of which the same is true: a window has a position of its own, whose score is finite, so
# that no -inf is taken from another, which would be NaN.
NOTHING = np.float32(1e30)


class Part:
    """One of cross-attention's tensors, of one window's place."""

    def __init__(self, name: str, place: NDArray[Any], positions: int) -> None:
        """
        Args:
            name: in the graphs.
            place: [1, ...] as kvcache.py has it, without gaps.
            positions: of the window, as many as the place has or fewer.

        Raises:
            ValueError: more.
        """
        self.name, self._place = name, place
        self.written = place  # where the encoder is to write: the place, or as much of its beginning as is needed
        self._own: tuple[slice, ...] = ()  # what of the place is the window's
        axis = _axis(name, place)
        if axis is None or place.shape[axis] == positions:
            return
        if place.shape[axis] < positions:
            raise ValueError(f"{positions} positions, the place has {place.shape[axis]}")
        shape, own = list(place.shape), [slice(None)] * place.ndim
        shape[axis], own[axis] = positions, slice(positions)
        self.written, self._own = place.reshape(-1)[:np.prod(shape)].reshape(shape), tuple(own)

    def spread(self) -> None:
        """Put what was written where it belongs; the rest gets no attention."""
        if not self._own:
            return
        assert self._place.dtype == np.int8 or self.name.endswith("_sum"), "only bytes have sums"
        self._place[self._own] = self.written.copy()  # it lies across both
        if self.name.endswith("_sum"):
            self._place[..., self._own[-1].stop:] = NOTHING


def _axis(name: str, place: NDArray[Any]) -> int | None:
    """Of the positions."""
    if name.endswith("_scale"):
        return None
    return -1 if name.endswith("_sum") or (name.startswith("cross_k") and place.dtype == np.int8) else 2
