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
CHUNK = 1 << 17  # weights worked on at once: temporaries then stay in a core's cache, and need no fresh memory


def quantize(weight: NDArray[Any], bits: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise finite weights [out, in] of any float type to (q int8 [out, in], s float32 [out]).

    With 4 bits q is still one integer a byte, in [-8, 7]; `pack_int4` packs it.
    """
    top = _top(bits)
    q = np.empty(weight.shape, dtype=np.int8)
    scale = np.empty(weight.shape[0], dtype=np.float32)
    step = max(1, CHUNK // max(1, weight.shape[1]))
    scratch = np.empty((2, min(step, weight.shape[0]), weight.shape[1]), dtype=np.float32)
    for start in range(0, weight.shape[0], step):
        rows = slice(start, start + step)
        w, push = scratch[:, : scale[rows].size]
        _widen(weight[rows], w)
        s = _largest(weight[rows]) / np.float32(top)
        w /= np.where(s == 0, np.float32(np.inf), s)[:, None]
        w += _just_below_half(w, push)
        q[rows] = np.clip(w, -top, top - 1, out=w)  # and cuts off at the point
        scale[rows] = s
    return q, scale


def rounded(w: NDArray[np.float32], scale: NDArray[np.float32], top: int) -> NDArray[np.float32]:
    """w [rows, columns] over its row's scale [rows], rounded half away from zero and clipped: whole numbers."""
    found = np.empty_like(w)
    np.divide(w, np.where(scale == 0, np.float32(np.inf), scale)[:, None], out=found)
    found += _just_below_half(found, np.empty_like(found))
    return np.trunc(np.clip(found, -top, top - 1, out=found), out=found)


def _widen(weight: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Finite values as float32.

    float16's bits go to where float32 has them, 112 exponents too low: a quarter of the time of NumPy's own cast.
    """
    if weight.dtype != np.float16:
        out[:] = weight
        return
    bits = out.view(np.int32)
    bits[:] = weight.view(np.int16)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, of which the shift left four copies; five bits of exponent; the fraction
    out *= np.float32(2.0**112)


def _largest(weight: NDArray[Any]) -> NDArray[np.float32]:
    """max|w| of each row; float16's bits without the sign are in the order of its values."""
    if weight.dtype != np.float16:
        largest: NDArray[Any] = np.abs(weight).max(axis=1, initial=0)
    else:
        largest = (weight.view(np.uint16) & np.uint16(0x7FFF)).max(axis=1, initial=0).view(np.float16)
    return largest.astype(np.float32)


def _just_below_half(x: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """The float32 just below a half, with the signs of x. Added to x and cut off at the point, it rounds half away from
    zero: the sum rounds up to the next integer exactly from a half on (with a whole half, from just below it).
    """
    bits = np.bitwise_and(x.view(np.uint32), np.uint32(0x80000000), out=out.view(np.uint32))
    bits |= np.float32(0.49999997).view(np.uint32)
    return out


def dequantize(q: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """q [out, in] times its row's scale [out], or its group's [out, groups], in float32."""
    if scale.ndim == 2:
        grouped = q.reshape(*scale.shape, -1) * scale[:, :, None]
        return grouped.reshape(q.shape)
    return q * scale[:, None]


def pack_int4(q: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack integers in [-8, 7], [out, in] with `in` even, to [out, in / 2].

    The even column goes to the low nibble, the odd one to the high, both as two's complement.
    """
    if q.shape[-1] % 2:
        raise ValueError(f"an odd inner dimension, {q.shape[-1]}, cannot be packed two to a byte")
    packed = np.empty((*q.shape[:-1], q.shape[-1] // 2), dtype=np.uint8)
    pairs, flat = np.ascontiguousarray(q).reshape(-1).view("<u2"), packed.reshape(-1)
    for piece in _pieces(flat.size):
        low = pairs[piece] & np.uint16(0x0F)
        flat[piece] = low | pairs[piece] >> np.uint16(4) & np.uint16(0xF0)
    return packed


def unpack_int4(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The inverse of `pack_int4`: [out, in / 2] to int8 [out, in]."""
    q = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), dtype=np.int8)
    pairs, flat = q.reshape(-1).view("<u2"), np.ascontiguousarray(packed).reshape(-1)
    for piece in _pieces(flat.size):
        both = pairs[piece]
        both[:] = flat[piece]
        both |= both << np.uint16(4)
        both &= np.uint16(0x0F0F)
        signed = both.view(np.int8)
        signed ^= np.int8(8)  # the sign of four bits, carried to eight
        signed -= np.int8(8)
    return q


def _pieces(size: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, size, CHUNK))


def _top(bits: int) -> int:
    if bits not in BITS:
        raise ValueError(f"{bits} bits; weight-only quantisation takes 8 or 4")
    return 1 << (bits - 1)
