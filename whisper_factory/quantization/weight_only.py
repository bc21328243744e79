"""Weight-only quantisation: symmetric, one scale per output channel, by TensorRT-LLM's definition.

With n = 2^(bits-1), for each row of a weight [out, in], all in float32:

    s = max|w| / n
    q = w / s rounded half away from zero, 0 where s is 0, clipped to [-n, n - 1]

The full signed range is used, so a row's largest positive weight is clipped from n to n - 1. Tests hold
this against digests of what TensorRT-LLM itself makes of tiny.en.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = (8, 4)
CHUNK = 1 << 20  # weights worked on at once; bounds the float32 temporaries to a few times 4 MiB


def quantize(weight: NDArray[Any], bits: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise finite weights [out, in] of any float type to (q int8 [out, in], s float32 [out]).

    With 4 bits q is still one integer a byte, in [-8, 7]; `pack_int4` packs it.
    """
    top = _top(bits)
    q = np.empty(weight.shape, dtype=np.int8)
    scale = np.empty(weight.shape[0], dtype=np.float32)
    for rows in _chunks(*weight.shape):
        w = weight[rows].astype(np.float32)
        s = np.abs(w).max(axis=1, initial=0) / np.float32(top)
        np.divide(w, s[:, None], out=w, where=s[:, None] != 0)
        w[s == 0] = 0
        q[rows] = np.clip(_round_half_away(w), -top, top - 1)
        scale[rows] = s
    return q, scale


def dequantize(q: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """q [out, in] times its row's scale [out], in float32."""
    return q * scale[:, None]


def pack_int4(q: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack integers in [-8, 7], [out, in] with `in` even, to [out, in / 2].

    The even column goes to the low nibble, the odd one to the high, both as two's complement.
    """
    if q.shape[-1] % 2:
        raise ValueError(f"an odd inner dimension, {q.shape[-1]}, cannot be packed two to a byte")
    nibbles: NDArray[np.uint8] = q.view(np.uint8) & np.uint8(0x0F)
    packed: NDArray[np.uint8] = nibbles[..., 0::2] | (nibbles[..., 1::2] << np.uint8(4))
    return packed


def unpack_int4(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The inverse of `pack_int4`: [out, in / 2] to int8 [out, in]."""
    q = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), dtype=np.int8)
    signed = packed.view(np.int8)
    q[..., 0::2] = (signed << 4) >> 4  # arithmetic shifts carry the sign
    q[..., 1::2] = signed >> 4
    return q


def _top(bits: int) -> int:
    if bits not in BITS:
        raise ValueError(f"{bits} bits; weight-only quantisation takes 8 or 4")
    return 1 << (bits - 1)


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, columns))
    return (slice(start, start + step) for start in range(0, rows, step))


def _round_half_away(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """C's roundf. Adding one half first would be wrong just below a half, where the sum rounds up."""
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x)  # x - whole is exact
