"""The packed layouts against upstream's steps taken one by one, and their inverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from whisper_factory.backends.tensorrt_llm import layout
from whisper_factory.backends.tensorrt_llm.families import Family
from whisper_factory.errors import UserError

# Upstream's permutation of rows, its columns that take turns, and its reordering of a 32-bit word's bytes or nibbles.
ROWS = {
    8: [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15],
    4: [0, 1, 8, 9, 16, 17, 24, 25, 2, 3, 10, 11, 18, 19, 26, 27, 4, 5, 12, 13, 20, 21, 28, 29, 6, 7, 14, 15, 22, 23,
        30, 31],
}
COLUMNS = {8: 2, 4: 4}
WORD = {8: [0, 2, 1, 3], 4: [0, 2, 4, 6, 1, 3, 5, 7]}


def integers(rows: int, columns: int, bits: int, seed: int = 0) -> NDArray[np.int8]:
    top = 1 << (bits - 1)
    return np.random.default_rng(seed).integers(-top, top, (rows, columns), dtype=np.int8)


def nibbles_or_bytes(unsigned: NDArray[Any], bits: int) -> NDArray[np.int8]:
    """Two nibbles a byte, the earlier one low."""
    flat = unsigned.astype(np.uint8).reshape(-1)
    return (flat if bits == 8 else flat[0::2] | flat[1::2] << 4).view(np.int8)


def step_by_step(q: NDArray[np.int8], bits: int) -> NDArray[np.int8]:
    """sm80 as upstream does it."""
    weight = q.T  # [in, out]
    group = len(ROWS[bits])
    order = [start + row for start in range(0, len(weight), group) for row in ROWS[bits]]
    columns = weight[order].T  # each new row takes the old one; then column-major
    tiles = [columns[first + column, tile : tile + 64]
             for first in range(0, len(columns), COLUMNS[bits])
             for tile in range(0, columns.shape[1], 64)
             for column in range(COLUMNS[bits])]
    unsigned = np.concatenate(tiles).astype(np.int16) + (1 << (bits - 1))
    words = unsigned.reshape(-1, len(WORD[bits]))[:, WORD[bits]]
    return nibbles_or_bytes(words, bits).reshape(q.shape[1], -1)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(64, 64), (192, 128), (64, 1536), (1152, 384)])
def test_sm80_is_upstreams_four_steps(bits: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    q = integers(*shape, bits)
    expected = step_by_step(q, bits)
    np.testing.assert_array_equal(layout.pack(q, bits, "sm80"), expected, strict=True)
    monkeypatch.setattr(layout, "BLOCK", 1000)  # many blocks, and an odd last one
    np.testing.assert_array_equal(layout.pack(q, bits, "sm80"), expected, strict=True)
    np.testing.assert_array_equal(layout.unpack(expected, bits, "sm80"), q, strict=True)


@pytest.mark.parametrize("bits", [8, 4])
def test_sm90_is_column_major_alone(bits: int) -> None:
    q = integers(128, 64, bits)
    expected = nibbles_or_bytes(q.view(np.uint8) & (0xFF if bits == 8 else 0x0F), bits).reshape(64, -1)
    np.testing.assert_array_equal(layout.pack(q, bits, "sm90"), expected, strict=True)


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), bits=st.sampled_from([8, 4]),
       family=st.sampled_from(["sm80", "sm90"]), seed=st.integers(0, 1 << 32),
       block=st.sampled_from([1, 4096, 1 << 18]))
def test_unpacking_is_the_inverse(rows: int, columns: int, bits: int, family: Family, seed: int, block: int) -> None:
    q = integers(64 * rows, 64 * columns, bits, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "BLOCK", block)
        packed = layout.pack(q, bits, family)
        assert packed.dtype == np.int8
        assert packed.shape == (64 * columns, 64 * rows * bits // 8)
        np.testing.assert_array_equal(layout.unpack(packed, bits, family), q, strict=True)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["sm80", "sm90"])
def test_the_inverse_of_any_bytes_packs_to_them_again(bits: int, family: Family) -> None:
    stored = np.random.default_rng(1).integers(-128, 128, (128, 192), dtype=np.int8)
    np.testing.assert_array_equal(layout.pack(layout.unpack(stored, bits, family), bits, family), stored)


def test_a_view_is_packed_as_its_values_are() -> None:
    q = integers(128, 256, 8)
    np.testing.assert_array_equal(layout.pack(q[::2, :128], 8, "sm80"), layout.pack(q[::2, :128].copy(), 8, "sm80"))


@pytest.mark.parametrize(("shape", "bits"), [((64, 96), 8), ((65, 64), 8), ((66, 64), 4), ((64, 32), 4)])
def test_shapes_that_do_not_fit(shape: tuple[int, int], bits: int) -> None:
    with pytest.raises(UserError, match=rf"\[out {shape[0]}, in {shape[1]}\] does not fit the sm80 layout"):
        layout.pack(integers(*shape, bits), bits, "sm80")
    with pytest.raises(UserError, match="does not fit the sm80 layout"):
        layout.unpack(np.zeros((shape[1], shape[0] * bits // 8), dtype=np.int8), bits, "sm80")
