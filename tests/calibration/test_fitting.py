"""One layer: the moments, the regression on drifted inputs, and the bias."""

from __future__ import annotations

import numpy as np
import pytest

from whisper_factory.calibration import fitting
from whisper_factory.calibration.fitting import Floats, Method, Moments
from whisper_factory.quantization import weight_only

NAME = "layer"


def data(shift: float = 0.0, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """A weight [24, 32], inputs [2000, 32] that hang together and have a mean, and the wanted outputs."""
    rng = np.random.default_rng(seed)
    strong = rng.standard_normal((2000, 32)) * np.geomspace(10, 0.1, 32)
    x = (strong @ rng.standard_normal((32, 32)) + shift).astype(np.float32)
    weight = rng.standard_normal((24, 32)).astype(np.float32)
    return weight, x, x @ weight.T


def moments_of(x: Floats, y: Floats, weight: float = 1.0) -> Moments:
    return Moments.of(fitting.extended([x]), {NAME: y}, weight)


def fit(weight: Floats, moments: Moments, method: Method, group_size: int = 0) -> fitting.Fitted:
    return fitting.fit({NAME: weight}, moments, method, group_size=group_size)[NAME]


def error(found: fitting.Fitted, x: Floats, y: Floats) -> Floats:
    made = weight_only.dequantize(found.rounded.q, found.rounded.scale)
    wrong: Floats = x @ made.T + found.bias - y
    return wrong


def test_moments_of_parts_are_those_of_the_whole() -> None:
    _, x, y = data()
    whole = moments_of(x, y)
    parts = Moments.total(moments_of(x[rows], y[rows]) for rows in (slice(700), slice(700, None)))
    assert parts.inputs.dtype == parts.outputs[NAME].dtype == np.float64
    np.testing.assert_allclose(parts.inputs, whole.inputs, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(parts.outputs[NAME], whole.outputs[NAME], rtol=1e-4, atol=1e-1)
    assert moments_of(x, y, 0.25).inputs[-1, -1] == 500


def test_moments_tell_what_is_not_finite() -> None:
    _, x, y = data()
    assert moments_of(x, y).finite()
    for array in (x, y):
        kept, array[3, 5] = array[3, 5], np.nan
        assert not moments_of(x, y).finite()
        array[3, 5] = kept


def test_inputs_are_extended_part_by_part() -> None:
    _, x, _ = data()
    np.testing.assert_array_equal(fitting.extended([x[:700], x[700:]]), np.c_[x, np.ones(len(x), np.float32)])


def test_moments_of_outputs_follow_from_those_of_the_exact_inputs() -> None:
    weight, x, _ = data(shift=2.0)
    bias, drifted = np.arange(24, dtype=np.float32), x * np.linspace(0.9, 1.1, x.shape[1], dtype=np.float32)
    given = fitting.extended([drifted])
    wanted = Moments.of(given, {"with": x @ weight.T + bias, "without": x @ weight.T})
    found = Moments.of(given, {fitting.EXACT: fitting.extended([x])})
    found.apply({"with": (weight, bias), "without": (weight, None)})
    assert set(found.outputs) == set(wanted.outputs)
    for name, sums in wanted.outputs.items():
        np.testing.assert_allclose(found.outputs[name], sums, rtol=1e-4, atol=1e-5 * np.abs(sums).max())


@pytest.mark.parametrize("method", ["scale", "gptq"])
def test_the_bias_takes_up_the_mean_of_the_error(method: Method) -> None:
    weight, x, y = data(shift=3.0)
    found = fit(weight, moments_of(x, y + 1), method)
    wrong = error(found, x, y + 1)
    assert np.abs(wrong.mean(axis=0)).max() < 0.01 * np.abs(wrong).max()
    assert found.rounded.q.dtype == np.int8
    assert found.rounded.scale.dtype == np.float32


def test_layers_that_are_rounded_together_are_as_each_by_itself() -> None:
    weight, x, y = data()
    weights = {"one": weight[:10], "other": weight[10:]}
    moments = Moments.of(fitting.extended([x]), {"one": y[:, :10], "other": y[:, 10:]})
    found = fitting.fit(weights, moments, "gptq")
    for name, rows in weights.items():
        alone = fitting.fit({name: rows}, moments, "gptq")[name]
        assert (found[name].rounded.q != alone.rounded.q).mean() < 0.01  # but for ties
        np.testing.assert_allclose(found[name].bias, alone.bias, atol=1e-3 * np.abs(alone.bias).max())


def test_compensation_is_better_than_a_scale() -> None:
    weight, x, y = data()
    moments = moments_of(x, y)
    by_scale, by_gptq = (np.square(error(fit(weight, moments, method), x, y)).mean()
                         for method in ("scale", "gptq"))
    assert by_gptq < 0.6 * by_scale


@pytest.mark.parametrize("method", ["scale", "gptq"])
def test_a_scale_for_each_group_is_better_than_one_for_a_row(method: Method) -> None:
    weight, x, _ = data()
    weight[:, :8] *= 0.3
    moments = moments_of(x, x @ weight.T)
    row, grouped = (fit(weight, moments, method, size) for size in (0, 8))
    assert row.rounded.scale.shape == (24,)
    assert grouped.rounded.scale.shape == (24, 4)
    wrong = [np.square(error(found, x, x @ weight.T)).mean() for found in (row, grouped)]
    assert wrong[1] < 0.8 * wrong[0]


def test_a_layer_makes_up_for_inputs_that_have_drifted() -> None:
    weight, x, y = data()
    drifted = x * np.linspace(0.7, 1.3, x.shape[1], dtype=np.float32)
    asked = fit(weight, moments_of(drifted, y), "gptq")
    not_asked = fit(weight, moments_of(drifted, drifted @ weight.T), "gptq")
    assert np.square(error(asked, drifted, y)).mean() < 0.3 * np.square(error(not_asked, drifted, y)).mean()


def test_scales_are_the_same_in_float16() -> None:
    weight, x, y = data()
    scale = fit(weight, moments_of(x, y), "gptq").rounded.scale
    np.testing.assert_array_equal(scale.astype(np.float16).astype(np.float32), scale)
