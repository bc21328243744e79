"""The position table, against upstream's formula as torch computes it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from whisper_factory.backends.tensorrt_llm.sinusoids import sinusoids, timescales

# SHA-256 (first 24 hex digits) of exp(-log(10000) / (width / 2 - 1) * arange(width / 2)) by torch 2.13 on x86-64.
TORCH = {
    384: "3f0193e4e831a2f21d7010a3",
    512: "ab6c28acdd87c0aa7cb028d5",
    768: "a79fa6a7202abfc4478f0a3f",
    1024: "9e31d4e47d9ca89ae36556c3",
    1280: "dc1d317bb6f50ab2693140aa",
}


@pytest.mark.parametrize("width", TORCH)
def test_timescales_are_torchs(width: int) -> None:
    assert hashlib.sha256(timescales(width).tobytes()).hexdigest()[:24] == TORCH[width]


@pytest.mark.parametrize("width", TORCH)
def test_sines_and_cosines(width: int) -> None:
    table = sinusoids(1500, width)
    assert table.dtype == np.float32
    assert table.shape == (1500, width)
    angles = (np.arange(1500, dtype=np.float32)[:, None] * timescales(width)).astype(np.float64)
    np.testing.assert_allclose(table[:, : width // 2], np.sin(angles), rtol=0, atol=1e-7)
    np.testing.assert_allclose(table[:, width // 2 :], np.cos(angles), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(table[0], np.repeat(np.float32([0, 1]), width // 2))


def test_the_formula_in_float64_is_as_near_as_float32_angles_allow() -> None:
    scales = np.exp(-np.log(10_000) / (384 // 2 - 1) * np.arange(384 // 2))
    exact = np.arange(1500)[:, None] * scales
    difference = np.abs(sinusoids(1500, 384) - np.concatenate([np.sin(exact), np.cos(exact)], axis=1))
    assert difference[:10].max() < 1e-6
    assert difference.max() < 2e-4
