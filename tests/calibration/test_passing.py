"""A whole model, of random weights: what is rounded, in which order, and what goes wrong."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.tiny_model import tiny_weights
from whisper_factory.calibration import forward
from whisper_factory.calibration.fitting import Method
from whisper_factory.calibration.passing import Calibrated, Window, calibrate
from whisper_factory.calibration.worker import as_stored
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.quantization import grams, weight_only
from whisper_factory.whisper.tensors import is_quantized

WEIGHTS = tiny_weights(seed=2, n_audio_ctx=60)
TENSORS = as_stored(WEIGHTS)
SIZES = WEIGHTS.dimensions


def windows(seed: int, count: int = 10) -> list[Window]:
    """Silence, then noise with tokens; the last fills the whole context."""
    rng = np.random.default_rng(seed)
    found = [Window("silence", np.full((80, 120), -1.5, np.float32), ())]
    for number in range(count):
        frames = 120 if number == count - 1 else 80
        mel = rng.standard_normal((80, frames)).astype(np.float32)
        found.append(Window(f"clip {number}", mel, (rng.integers(0, 50_000, 12 + number),
                                                            rng.integers(0, 50_000, 30))))
    return found


@cache
def calibrated(method: Method = "gptq") -> Calibrated:
    return calibrate(TENSORS, SIZES, windows(0, 40), method)


def made(found: Calibrated) -> dict[str, Any]:
    integers = {f"{name}.weight": one.q * one.scale[:, None] for name, one in found.rounded.items()}
    return {**TENSORS, **integers, **found.biases}


def plain() -> dict[str, Any]:
    return {**TENSORS, **{name: weight_only.dequantize(*weight_only.quantize(TENSORS[name], 4))
                          for name in TENSORS if is_quantized(name)}}


def states(tensors: Any) -> Any:
    """The decoder's of windows that were not used to calibrate."""
    found = []
    for window in windows(1, 4)[1:]:
        seen = forward.encode(window.mel, tensors, SIZES.n_audio_layer, SIZES.n_audio_head)
        cross = forward.cross_keys_values(seen, tensors, SIZES.n_text_layer)
        found.append(forward.decode(window.texts[0], cross, tensors, SIZES.n_text_head))
    return np.concatenate(found)


def test_every_linear_is_rounded_and_every_bias_of_theirs_is_fitted() -> None:
    found = calibrated()
    assert {f"{name}.weight" for name in found.rounded} == set(filter(is_quantized, TENSORS))
    assert set(found.biases) == {f"{name}.bias" for name in found.rounded if f"{name}.bias" in TENSORS}
    for name, one in found.rounded.items():
        assert one.q.shape == TENSORS[f"{name}.weight"].shape
        assert one.q.min() >= -8
        assert one.q.max() <= 7
        assert one.scale.shape == one.q.shape[:1]
        assert (one.scale > 0).all()


def test_each_method_is_nearer_to_the_exact_model_than_the_one_before() -> None:
    exact = states(TENSORS)
    wrong = [np.square(states(tensors) - exact).mean() for tensors in (plain(), made(calibrated("scale")),
                                                                       made(calibrated()))]
    assert wrong[2] < wrong[1] < wrong[0]


def test_the_same_bytes_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest() -> str:
        found = calibrate(TENSORS, SIZES, windows(0, 4), "gptq")
        return hashlib.sha256(b"".join(one.q.tobytes() + one.scale.tobytes() for one in found.rounded.values())
                              + b"".join(bias.tobytes() for bias in found.biases.values())).hexdigest()

    several = digest()
    monkeypatch.setattr("whisper_factory.threads.MOST", 1)
    assert digest() == several


def test_groups_have_scales_of_their_own_and_kept_layers_are_not_rounded_to_4_bits() -> None:
    keep = ("encoder.blocks.0.mlp.2", "decoder.blocks.0.cross_attn.key", "decoder.blocks.0.cross_attn.value")
    told: list[float] = []
    found = calibrate(TENSORS, SIZES, windows(0, 4), "gptq", told.append, Precision("int4_g32", 4, "float16", 32, keep))
    layers = {name.removesuffix(".weight") for name in filter(is_quantized, TENSORS)}
    assert set(found.rounded) == layers - set(keep)
    assert "encoder.blocks.0.mlp.2.bias" not in found.biases
    assert sum(told) == len(layers)
    for one in found.rounded.values():
        assert one.scale.shape == (one.q.shape[0], one.q.shape[1] // 32)


def test_progress_is_told_layer_by_layer() -> None:
    told: list[float] = []
    calibrate(TENSORS, SIZES, windows(0, 3), "scale", told.append)
    assert sum(told) == len(list(filter(is_quantized, TENSORS)))


def test_activations_that_are_not_finite_name_the_clip() -> None:
    given = windows(0, 3)
    given[2].mel[5, 7] = np.nan
    with pytest.raises(UserError, match=r"what clip 1 gives encoder\.blocks\.0\.attn\.query is not finite; leave the"):
        calibrate(TENSORS, SIZES, given, "gptq")


def test_a_covariance_that_cannot_be_used_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_factory.quantization.grams.DAMPING", -2.0)
    monkeypatch.setattr(grams.damp, "__defaults__", (-2.0,))
    with pytest.raises(UserError, match=r"encoder\.blocks\.0\.attn\.query: .*not positive, even damped; give cal"):
        calibrate(TENSORS, SIZES, windows(0, 3), "gptq")


def test_a_dead_input_channel_is_no_matter() -> None:
    tensors = dict(TENSORS)
    for part in ("weight", "bias"):
        tensors[f"encoder.blocks.0.attn_ln.{part}"] = TENSORS[f"encoder.blocks.0.attn_ln.{part}"].copy()
        tensors[f"encoder.blocks.0.attn_ln.{part}"][3] = 0
    found = calibrate(tensors, SIZES, windows(0, 3), "gptq")
    assert all(np.isfinite(one.scale).all() for one in found.rounded.values())
