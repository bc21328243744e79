"""The exact model, block after block, ahead of who asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.tiny_model import tiny_weights
from whisper_factory.calibration import exact, forward, parts
from whisper_factory.calibration.exact import Exact
from whisper_factory.calibration.parts import Models, Unit
from whisper_factory.calibration.worker import as_stored
from whisper_factory.calibration.workers import Workers

WEIGHTS = tiny_weights(seed=2, n_audio_ctx=60)
TENSORS, SIZES = as_stored(WEIGHTS), WEIGHTS.dimensions
BLOCKS = 3  # the same one


def windows() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, SIZES.n_audio_state)).astype(np.float32) for length in (40, 60, 20, 20)]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_each_block_is_told_in_turn_and_the_residual_behind_all(monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    monkeypatch.setattr(exact, "AHEAD", ahead)
    models, given = Models((TENSORS, dict(TENSORS)), ([], [])), windows()
    units = [Unit((str(place),), (len(x),), slice(1, None, 2)) for place, x in enumerate(given)]
    with Workers() as workers:
        found = Exact(models, workers)
        found.feed(given, units, [parts.encoder_block(models, SIZES, 0)] * BLOCKS)
        told = [found.block() for _ in range(BLOCKS)]
        ends = [found.end(place) for place in range(len(given))]
    for place, x in enumerate(given):
        for wanted in told:
            attention, mlp = wanted[place]
            normal = forward.layer_norm(x, TENSORS, "encoder.blocks.0.attn_ln")
            np.testing.assert_allclose(attention.normal, normal[1::2], atol=1e-5)
            x = x + forward.self_attention(x, TENSORS, "encoder.blocks.0", SIZES.n_audio_head)
            np.testing.assert_allclose(attention.after, x[1::2], atol=1e-5)
            x = x + forward.mlp(x, TENSORS, "encoder.blocks.0")
            np.testing.assert_allclose(mlp.after, x[1::2], atol=1e-5)
        np.testing.assert_allclose(ends[place], x, atol=1e-5)


def test_an_error_in_a_block_is_told_to_who_asks_for_it() -> None:
    models = Models((TENSORS, dict(TENSORS)), ([], []))
    wrong = [np.zeros((4, SIZES.n_audio_state + 1), np.float32)]
    with Workers() as workers:
        found = Exact(models, workers)
        found.feed(wrong, [Unit(("one",), (4,), slice(None))], [parts.encoder_block(models, SIZES, 0)] * BLOCKS)
        with pytest.raises(ValueError, match="operands could not be broadcast"):
            found.block()
