"""The encoder's position table, which upstream's converter recomputes rather than copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# An angle is a position times a timescale, so at position 1499 one bit of a timescale is 3e-5 in the table. Where exp
# falls almost between two float32 numbers, upstream's math library (torch's, on x86-64) takes the farther one: that is,
# by width, index and the number of steps. Found by comparing with torch 2.13, whose table has the recorded digest.
_FARTHER = {
    384: {38: 1, 59: 1, 150: -1},
    512: {59: -1, 74: -1, 126: 1, 141: 1},
    768: {176: -1, 271: 1},
    1024: {96: -1, 126: 1, 239: 1, 401: -1},
    1280: {114: 1, 120: 1, 200: 1, 279: -1, 348: 1, 418: -1, 540: 1},
}


def timescales(width: int) -> NDArray[np.float32]:
    """The frequencies [width / 2] of a table `width` wide: 1 down to 1 / 10000, evenly in the logarithm."""
    half = width // 2
    step = np.float32(np.log(10_000) / (half - 1))
    logarithms = -step * np.arange(half, dtype=np.float32)
    scales: NDArray[np.float32] = np.exp(logarithms.astype(np.float64)).astype(np.float32)
    for index, steps in _FARTHER.get(width, {}).items():
        scales[index] = np.nextafter(scales[index], np.float32(np.inf * steps))
    return scales


def sinusoids(length: int, width: int) -> NDArray[np.float32]:
    """The table [length, width]: sines, then cosines, of float32 angles, each rounded once.

    Equal to upstream's but for the last bit of about one entry in twenty, and the same on every machine.
    """
    angles = (np.arange(length, dtype=np.float32)[:, None] * timescales(width)).astype(np.float64)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
