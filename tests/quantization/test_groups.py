"""Scales for groups: each is the best of the ones that are tried, and knows no other group."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from whisper_factory.quantization import groups, weight_only
from whisper_factory.quantization.weight_only import dequantize, pack_int4, unpack_int4

SHAPES = dict(rows=st.integers(1, 5), count=st.integers(1, 4), size=st.sampled_from([2, 6, 32, 128]),
              seed=st.integers(0, 999))


def weights(rows: int, count: int, size: int, seed: int) -> NDArray[np.float16]:
    """Rows of other magnitudes, one in five all zeros."""
    rng = np.random.default_rng(seed)
    sizes = rng.random((rows, 1)) * (rng.random((rows, 1)) > 0.2)
    return (rng.standard_normal((rows, count * size)) * sizes).astype(np.float16)


@settings(max_examples=100, deadline=None)
@given(**SHAPES)
def test_properties(rows: int, count: int, size: int, seed: int) -> None:
    weight = weights(rows, count, size, seed)
    q, scale = groups.quantize(weight, 4, size)
    assert (q.shape, scale.shape, q.dtype, scale.dtype) == (weight.shape, (rows, count), np.int8, np.float32)
    assert q.min() >= -8
    assert q.max() <= 7
    assert (scale >= 0).all()
    back = dequantize(q, scale)
    assert (back.shape, back.dtype) == (weight.shape, np.float32)
    np.testing.assert_array_equal(unpack_int4(pack_int4(q)), q)
    split = weight.reshape(-1, size).astype(np.float32)
    np.testing.assert_array_equal(q.reshape(-1, size), weight_only.rounded(split, scale.reshape(-1), 8))
    plain = dequantize(*weight_only.quantize(weight.reshape(-1, size), 4))
    lost, before = (np.square(split - found.reshape(-1, size), dtype=np.float64).sum(axis=1) for found in (back, plain))
    assert (lost <= before * (1 + 1e-5)).all()


@settings(max_examples=30, deadline=None)
@given(**SHAPES)
def test_a_group_knows_no_other(rows: int, count: int, size: int, seed: int) -> None:
    weight = weights(rows, count, size, seed)
    q, scale = groups.quantize(weight, 4, size)
    for group in range(count):
        here = slice(group * size, (group + 1) * size)
        alone, scale_alone = groups.quantize(weight[:, here], 4, size)
        np.testing.assert_array_equal(q[:, here], alone)
        np.testing.assert_array_equal(scale[:, group : group + 1], scale_alone)


@pytest.mark.parametrize("seed", range(3))
def test_the_scale_is_the_best_that_was_tried(seed: int) -> None:
    """In exact arithmetic, but for what float32's sums are off."""
    weight = weights(1, 1, 32, seed) if seed else np.full((1, 32), 7, np.float16)
    _, scale = groups.quantize(weight, 4, 32)
    values = [Fraction(float(w)) for w in weight[0]]

    def lost(s: Fraction) -> Fraction:
        whole = [max(-8, min(7, int(abs(w / s) + Fraction(1, 2)) * (1 if w > 0 else -1))) for w in values]
        return sum(((w - s * n) ** 2 for w, n in zip(values, whole, strict=True)), Fraction(0))

    tried = [max(map(abs, values)) / (8 * Fraction(ratio)) for ratio in groups.RATIOS]
    assert lost(Fraction(float(scale[0, 0]))) <= min(map(lost, tried)) * Fraction(1001, 1000) + Fraction(1, 10**9)


def test_the_largest_weight_is_whole_where_that_is_best() -> None:
    """Rounded by max|w| / 8 it would be clipped to 7 / 8 of itself."""
    q, scale = groups.quantize(np.array([[7.0] + [1.0] * 31]), 4, 32)
    assert (q[0, 0], scale.tolist()) == (7, [[1.0]])
    np.testing.assert_array_equal(q[0, 1:], 1)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = weights(37, 4, 32, 5)
    whole = groups.quantize(weight, 4, 32)
    for chunk in (1, 100):
        monkeypatch.setattr(weight_only, "CHUNK", chunk)
        for one, other in zip(whole, groups.quantize(weight, 4, 32), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_groups_do_not_divide() -> None:
    with pytest.raises(ValueError, match="groups of 32 do not divide an inner dimension of 48"):
        groups.quantize(np.zeros((2, 48)), 4, 32)
