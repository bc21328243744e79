"""Weight-only quantisation in groups: neighbours of a row share a scale, that which loses least.

No upstream defines these bytes, so the scale need not be max|w| / n (weight_only.py): with n = 2^(bits-1) it is, of
max|w| / (n * r) for each r of RATIOS, the one with the least sum of (w - s q)², the first of equals. r < 1 leaves the
largest weight unclipped, r > 1 has finer steps for all others. Scales are positive, as TensorRT demands them. Sums are
of pairs, of those sums pairs and so on, in float32, so that they are the same on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.quantization import weight_only

Floats = NDArray[np.float32]
RATIOS = (1.0, 0.875, 0.90625, 0.9375, 0.96875, 1.03125, 1.0625, 1.125, 1.1875, 1.25)


def quantize(weight: NDArray[Any], bits: int, group_size: int) -> tuple[NDArray[np.int8], Floats]:
    """Quantise finite weights [out, in] of any float type to (q int8 [out, in], s float32 [out, in / group_size]).

    Raises:
        ValueError: groups of this size do not divide `in`.
    """
    if weight.shape[1] % group_size:
        raise ValueError(f"groups of {group_size} do not divide an inner dimension of {weight.shape[1]}")
    groups = weight.reshape(-1, group_size)
    q, scale = np.empty(groups.shape, np.int8), np.empty(len(groups), np.float32)
    step = max(1, weight_only.CHUNK // group_size)
    for start in range(0, len(groups), step):
        here = slice(start, start + step)
        q[here], scale[here] = _searched(groups[here].astype(np.float32), 1 << (bits - 1))
    return q.reshape(weight.shape), scale.reshape(weight.shape[0], -1)


def _searched(w: Floats, top: int) -> tuple[NDArray[np.int8], Floats]:
    """Integers [groups, size] and scales [groups] of a few groups."""
    largest = np.abs(w).max(axis=1)
    least = np.full(len(w), np.inf, np.float32)
    integers, scale = np.zeros(w.shape, np.int8), np.zeros(len(w), np.float32)
    for ratio in RATIOS:
        tried = largest / np.float32(top * ratio)
        q = weight_only.rounded(w, tried, top)
        lost = _sums(np.square(w - q * tried[:, None]))
        better = lost < least
        least[better], scale[better], integers[better] = lost[better], tried[better], q[better]
    return integers, scale


def _sums(values: Floats) -> Floats:
    """Of each row: the columns of the right half onto those of the left, until there is one, or an odd number."""
    while values.shape[1] % 2 == 0:
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    total: Floats = values[:, 0].copy()
    for column in range(1, values.shape[1]):
        total += values[:, column]
    return total
