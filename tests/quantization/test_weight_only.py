"""The definition of weight-only quantisation: its properties, and TensorRT-LLM's own integers for tiny.en."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tests.real_weights import DIGESTS, TINY_EN, packaged, stacked
from whisper_factory.quantization import weight_only
from whisper_factory.quantization.weight_only import dequantize, pack_int4, quantize, unpack_int4
from whisper_factory.whisper.readers import ctranslate2

WEIGHTS = hnp.arrays(
    np.float16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-100, 100, width=16) | st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.5, 8.0, -8.0]),
)
BITS = st.sampled_from([8, 4])


def reference(w: float, amax: float, bits: int) -> int:
    """The definition in exact arithmetic (dividing by a power of two, s is exact)."""
    top = 2 ** (bits - 1)
    if amax == 0:
        return 0
    ratio = Fraction(w) * top / Fraction(amax)
    whole, rest = divmod(abs(ratio), 1)
    q: int = int(whole) + int(rest >= Fraction(1, 2))
    return int(max(-top, min(top - 1, q if ratio >= 0 else -q)))


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, BITS)
def test_properties(weight: NDArray[np.float16], bits: int) -> None:
    q, scale = quantize(weight, bits)
    top = 2 ** (bits - 1)
    assert q.dtype == np.int8
    assert scale.dtype == np.float32
    assert q.shape == weight.shape
    assert q.min() >= -top
    assert q.max() <= top - 1
    amax = np.abs(weight).max(axis=1).astype(np.float32)
    np.testing.assert_array_equal(scale, amax / np.float32(top))
    assert not q[scale == 0].any()
    error = np.abs(weight.astype(np.float64) - dequantize(q, scale))
    clipped = weight.astype(np.float32) > (top - 1) * scale[:, None]
    bound = np.where(clipped, 1.0, 0.5) * scale[:, None].astype(np.float64)
    assert (error <= bound * (1 + 1e-5)).all()


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, BITS)
def test_against_exact_arithmetic(weight: NDArray[np.float16], bits: int) -> None:
    q, _ = quantize(weight, bits)
    for row, integers in zip(weight.tolist(), q.tolist(), strict=True):
        amax = max(map(abs, row))
        for w, integer in zip(row, integers, strict=True):
            exact = reference(w, amax, bits)
            if integer != exact:  # float32's division may land on a half that the exact ratio only comes near
                ratio = Fraction(w) * 2 ** (bits - 1) / Fraction(amax)
                assert abs(abs(ratio) % 1 - Fraction(1, 2)) < Fraction(1, 2**15)


@pytest.mark.parametrize(("bits", "row", "expected"), [
    (8, [128, 127, 0.5, -0.5, 1.5, -1.5, 0.25, -128], [127, 127, 1, -1, 2, -2, 0, -128]),
    (4, [8, 7, 0.5, -0.5, 2.5, -2.5, 7.5, -8], [7, 7, 1, -1, 3, -3, 7, -8]),
    (4, [0, 0, 0, 0], [0, 0, 0, 0]),
])
def test_halves_go_away_from_zero(bits: int, row: list[float], expected: list[int]) -> None:
    q, scale = quantize(np.array([row]), bits)
    assert q.tolist() == [expected]
    assert scale.tolist() == [float(max(row) > 0)]


def test_just_below_a_half_goes_down() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    q, _ = quantize(np.array([[128.0, below, -below]], np.float32), 8)
    assert q.tolist() == [[127, 0, 0]]


@pytest.mark.parametrize("bits", [8, 4])
def test_every_float16_is_taken_for_what_it_is(bits: int) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    weight = every[np.isfinite(every)].reshape(-1, 31)
    assert weight.shape == (2048, 31)
    for weights in (weight, weight.T):  # rows of one magnitude, subnormal ones among them; rows of all of them
        for narrow, wide in zip(quantize(weights, bits), quantize(weights.astype(np.float32), bits), strict=True):
            np.testing.assert_array_equal(narrow, wide, strict=True)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).standard_normal((37, 16), dtype=np.float32)
    whole = quantize(weight, 8)
    for chunk in (1, 16, 100):
        monkeypatch.setattr(weight_only, "CHUNK", chunk)
        for one, other in zip(whole, quantize(weight, 8), strict=True):
            np.testing.assert_array_equal(one, other)
        q, _ = quantize(weight, 4)
        np.testing.assert_array_equal(unpack_int4(pack_int4(q)), q)


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 8).map(lambda n: 2 * n)),
                  elements=st.integers(-8, 7)))
def test_packed_round_trip(q: NDArray[np.int8]) -> None:
    packed = pack_int4(q)
    assert packed.dtype == np.uint8
    assert packed.shape == (q.shape[0], q.shape[1] // 2)
    np.testing.assert_array_equal(unpack_int4(packed), q)


def test_the_even_column_is_in_the_low_nibble() -> None:
    assert pack_int4(np.array([[1, -2, -8, 7]], np.int8)).tolist() == [[0xE1, 0x78]]


@pytest.mark.parametrize("call", [
    lambda: quantize(np.zeros((2, 2)), 5), lambda: pack_int4(np.zeros((2, 3), np.int8)),
])
def test_what_is_not_defined_is_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"5 bits|odd inner dimension"):
        call()


@pytest.mark.parametrize("bits", [8, 4])
def test_tiny_en_gives_tensorrt_llms_integers_and_scales(bits: int) -> None:
    tensors = ctranslate2.read(packaged(TINY_EN).parent).tensors
    digests = DIGESTS[f"int{bits}"]
    for name in [name for name in digests if name.endswith(".weight")]:
        q, scale = quantize(stacked(tensors, name), bits)
        stored = q if bits == 8 else pack_int4(q)
        assert hashlib.sha256(stored.tobytes()).hexdigest()[:24] == digests[name], name
        scale_name = name.removesuffix("weight") + "scale"  # TensorRT-LLM keeps it in the model's dtype
        assert hashlib.sha256(scale.astype(np.float16).tobytes()).hexdigest()[:24] == digests[scale_name], name
