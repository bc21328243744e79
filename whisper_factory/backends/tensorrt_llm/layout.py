"""The order in which TensorRT-LLM's mixed GEMM kernels want a matrix's integers, and its inverse.

A matrix q [out, in] is stored as [in, out], or [in, out / 2] with two 4-bit integers a byte; what lies where behind
that shape depends on the GPU's family. For sm80 upstream takes four steps from q's transpose:

1. within every 16 rows (of `in`; 32 with 4 bits) row r is old row P[r]: 0 1 8 9 2 3 10 11 ..., 0 1 8 9 16 17 24 25 ...
2. column-major: [out, in]
3. the 2 (with 4 bits 4) columns of a group take turns along `in`, 64 integers each
4. 2^(bits-1) is added, and each 32-bit word's bytes are reordered to 0 2 1 3, or its nibbles to 0 2 4 6 1 3 5 7

Steps 1 and 4 compose into something simple: the two halves of 16 (the four quarters of 32) are dealt out in turn, one
integer each. So packing works on 64-bit words of 8 integers, which stay in order. sm90 is step 2 alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.tensorrt_llm.families import Family
from whisper_factory.errors import UserError
from whisper_factory.quantization import weight_only

TILE = 64  # integers of one column that stay together
COLUMNS = {8: 2, 4: 4}  # that take turns, by bits
BLOCK = 1 << 18  # integers worked on at once: the scratch then stays in a core's cache

_LOW = np.uint64(0x0F0F0F0F0F0F0F0F)
_FOUR = np.uint64(4)


def packed_shape(rows: int, columns: int, bits: int) -> tuple[int, int]:
    """The stored shape of q [rows = out, columns = in]: [in, out], or [in, out / 2] with 4 bits."""
    return columns, rows * bits // 8


def pack(q: NDArray[np.int8], bits: int, family: Family) -> NDArray[np.int8]:
    """Integers [out, in], of 8 or 4 bits, to the stored int8 [in, out] or [in, out / 2].

    Raises:
        UserError: a shape that the layout cannot hold.
    """
    rows, columns = q.shape
    _check(rows, columns, bits, family)
    q, shape = np.ascontiguousarray(q), packed_shape(rows, columns, bits)
    if family == "sm90":
        stored: NDArray[Any] = q if bits == 8 else weight_only.pack_int4(q)
        return stored.view(np.int8).reshape(shape)
    packed = np.empty((rows, columns * bits // 8), dtype=np.uint8)
    for block in _blocks(rows, columns, bits):
        words = _turns(q[block].view(np.uint64), bits)
        low, high = (words[..., 0], words[..., 1]) if bits == 8 else (
            _nibbles(words[..., 0], words[..., 1]), _nibbles(words[..., 2], words[..., 3]))
        dealt = packed[block].reshape(-1).view("<u2")
        dealt[:] = _bytes(high)
        dealt <<= np.uint16(8)
        dealt |= _bytes(low)
        dealt ^= np.uint16(0x8080 if bits == 8 else 0x8888)  # adds 2^(bits-1) to each two's complement
    return packed.view(np.int8).reshape(shape)


def unpack(packed: NDArray[np.int8], bits: int, family: Family) -> NDArray[np.int8]:
    """The inverse of `pack`: the stored [in, out] or [in, out / 2] to integers int8 [out, in].

    Raises:
        UserError: a shape that the layout cannot hold.
    """
    columns, rows = packed.shape[0], packed.shape[1] * 8 // bits
    _check(rows, columns, bits, family)
    stored = np.ascontiguousarray(packed).view(np.uint8).reshape(rows, columns * bits // 8)
    if family == "sm90":
        return stored.view(np.int8) if bits == 8 else weight_only.unpack_int4(stored)
    q = np.empty((rows, columns), dtype=np.int8)
    for block in _blocks(rows, columns, bits):
        dealt = stored[block].reshape(-1).view("<u2") ^ np.uint16(0x8080 if bits == 8 else 0x8888)
        halves = [(dealt >> np.uint16(shift)).astype(np.uint8).view(np.uint64) for shift in (0, 8)]
        if bits == 4:
            halves = [nibbles >> shift & _LOW for nibbles in halves for shift in (np.uint64(0), _FOUR)]
        words = _turns(q[block].view(np.uint64), bits)
        for place, half in enumerate(halves):
            words[..., place] = half.reshape(words.shape[:-1])
        if bits == 4:
            q[block] = (q[block] ^ np.int8(8)) - np.int8(8)  # the sign of four bits, carried to eight
    return q


def _check(rows: int, columns: int, bits: int, family: Family) -> None:
    along, across = (TILE, COLUMNS[bits]) if family == "sm80" else (8 // bits, 8 // bits)
    if columns % along or rows % across:
        raise UserError(f"a matrix [out {rows}, in {columns}] does not fit the {family} layout of {bits}-bit integers, "
                        f"which needs `in` to be a multiple of {along} and `out` one of {across}")


def _blocks(rows: int, columns: int, bits: int) -> list[slice]:
    step = max(1, BLOCK // (columns * COLUMNS[bits])) * COLUMNS[bits]
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _turns(words: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """Words [out, in / 8] as a view [group, tile, column, words dealt in turn, word], the order of step 3."""
    rows, in_turn = words.shape[0], COLUMNS[bits]
    tiles: NDArray[np.uint64] = words.reshape(rows // in_turn, in_turn, -1, TILE // 8 // in_turn, in_turn)
    turns: NDArray[np.uint64] = tiles.transpose(0, 2, 1, 3, 4)
    return turns


def _nibbles(low: NDArray[np.uint64], high: NDArray[np.uint64]) -> NDArray[np.uint64]:
    nibbles: NDArray[np.uint64] = low & _LOW | (high & _LOW) << _FOUR
    return nibbles


def _bytes(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words).view(np.uint8).reshape(-1)
