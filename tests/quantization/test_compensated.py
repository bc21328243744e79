"""Error-compensated rounding on inputs that are correlated, as a layer's are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from whisper_factory.quantization import compensated, grams, weight_only
from whisper_factory.quantization import groups as grouped
from whisper_factory.quantization.compensated import HIGH, LOW, Floats
from whisper_factory.quantization.grams import Factor

ROWS, COLUMNS = 24, 160  # more columns than two blocks


def layer(seed: int = 0, columns: int = COLUMNS) -> tuple[Floats, NDArray[np.float64]]:
    """A weight, and the damped covariance of inputs of which a few directions are strong."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((500, columns)) * np.geomspace(10, 0.1, columns)
    inputs = inputs @ np.linalg.qr(rng.standard_normal((columns, columns)))[0]
    weight = rng.standard_t(4, (ROWS, columns)).astype(np.float32)  # with the odd large one, as trained weights have
    return weight, grams.damp(np.cov(inputs.T))


def total(weight: Floats, gram: NDArray[np.float64], q: Floats, scale: Floats) -> float:
    return float(compensated.cost(weight, gram.astype(np.float32), q, scale).sum())


def test_each_stage_costs_less_than_the_one_before() -> None:
    weight, gram = layer()
    narrow = gram.astype(np.float32)
    plain, scale = weight_only.quantize(weight, 4)
    costs = [total(weight, gram, plain.astype(np.float32), scale[:, None])]
    scale = compensated.search_scales(weight, narrow)
    costs.append(total(weight, gram, compensated.round_to(weight, scale), scale))
    q = compensated.gptq(weight, Factor.of(gram), scale)
    costs.append(total(weight, gram, q, scale))
    q = compensated.descend(weight, narrow, scale, q)
    costs.append(total(weight, gram, q, scale))
    costs.append(total(weight, gram, q, compensated.refit(weight, narrow, q, scale)))
    better = compensated.search_scales(weight, Factor.of(gram).left)
    assert costs == sorted(costs, reverse=True)
    assert total(weight, gram, compensated.gptq(weight, Factor.of(gram), better), better) < costs[2]
    assert costs[2] < 0.5 * costs[1]  # what compensation is for
    assert q.min() >= LOW
    assert q.max() <= HIGH
    assert np.array_equal(q, np.rint(q))


@pytest.mark.parametrize("groups", [5, 20])
def test_each_stage_costs_less_with_groups_too_and_the_more_the_less(groups: int) -> None:
    weight, gram = layer()
    narrow, factor = gram.astype(np.float32), Factor.of(gram)
    plain, scale = grouped.quantize(weight, 4, COLUMNS // groups)
    costs = [total(weight, gram, plain.astype(np.float32), scale)]
    scale = compensated.search_scales(weight, narrow, groups)
    assert scale.shape == (ROWS, groups)
    costs.append(total(weight, gram, compensated.round_to(weight, scale), scale))
    scale = compensated.search_scales(weight, factor.left, groups)
    q = compensated.gptq(weight, factor, scale)
    costs.append(total(weight, gram, q, scale))
    q = compensated.descend(weight, narrow, scale, q)
    costs.append(total(weight, gram, q, scale))
    scale = compensated.refit(weight, narrow, q, scale)
    costs.append(total(weight, gram, q, scale))
    assert costs == sorted(costs, reverse=True)
    row = compensated.search_scales(weight, factor.left)
    assert costs[2] < total(weight, gram, compensated.gptq(weight, factor, row), row)
    assert (scale > 0).all()


def test_each_column_keeps_its_group_in_whatever_order_columns_are_rounded() -> None:
    weight, gram = layer()
    weight[:, :COLUMNS // 2] *= 100  # the weak inputs' weights
    gram = gram * np.outer(*[np.repeat([0.1, 1], COLUMNS // 2)] * 2)
    scale = np.abs(weight.reshape(ROWS, 2, -1)).max(axis=2) / HIGH
    q = compensated.gptq(weight, Factor.of(gram), scale)
    assert np.abs(weight - compensated.made_of(q, scale)).max() < 4 * scale.max()
    assert total(weight, gram, q, scale) < total(weight, gram, compensated.round_to(weight, scale), scale)


def test_a_refitted_scale_cannot_be_bettered() -> None:
    weight, gram = layer(2, columns=64)
    narrow = gram.astype(np.float32)
    scale = compensated.search_scales(weight, narrow, 2)
    q = compensated.round_to(weight, scale)
    for _ in range(50):
        scale = compensated.refit(weight, narrow, q, scale)
    least = compensated.cost(weight, narrow, q, scale)
    for group, by in itertools.product(range(2), (0.98, 1.02)):
        other = scale.copy()
        other[:, group] *= by
        assert (compensated.cost(weight, narrow, q, other) > least).all()


def test_inputs_that_are_independent_leave_nothing_to_compensate() -> None:
    weight, _ = layer()
    scale = np.abs(weight).max(axis=1, keepdims=True) / HIGH
    nearest = compensated.round_to(weight, scale)
    np.testing.assert_array_equal(compensated.gptq(weight, Factor.of(np.eye(COLUMNS)), scale), nearest)
    np.testing.assert_array_equal(compensated.descend(weight, np.eye(COLUMNS, dtype=np.float32), scale, nearest),
                                  nearest)


def test_no_single_integer_can_be_improved_after_the_descent() -> None:
    weight, gram = layer(1, columns=12)
    narrow = gram.astype(np.float32)
    scale = compensated.search_scales(weight, narrow)
    q = compensated.descend(weight, narrow, scale, compensated.gptq(weight, Factor.of(gram), scale), sweeps=20)
    least = compensated.cost(weight, narrow, q, scale)
    for column, step in itertools.product(range(12), (-1, 1)):
        other = q.copy()
        other[:, column] = np.clip(other[:, column] + step, LOW, HIGH)
        assert (compensated.cost(weight, narrow, other, scale) >= least * (1 - 1e-5)).all()


def test_the_search_finds_a_smaller_scale_for_a_row_with_one_large_weight_that_hardly_counts() -> None:
    weight = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 64)).astype(np.float32)
    weight[0, 5] = 1.0
    gram = np.eye(64, dtype=np.float32)
    assert compensated.search_scales(weight, gram)[0, 0] > 0.8 / HIGH
    gram[5, 5] = 1e-4
    assert compensated.search_scales(weight, gram)[0, 0] < 0.6 / HIGH


def test_dead_inputs_and_rows_of_zeros() -> None:
    weight, gram = layer()
    weight[3] = 0
    gram[7] = gram[:, 7] = 0
    gram = grams.damp(gram)
    scale = compensated.search_scales(weight, gram.astype(np.float32))
    q = compensated.descend(weight, gram.astype(np.float32), scale, compensated.gptq(weight, Factor.of(gram), scale))
    scale = compensated.refit(weight, gram.astype(np.float32), q, scale)
    assert np.isfinite(q).all()
    assert np.isfinite(scale).all()
    assert not q[3].any()
    assert scale[3] == 0
    alive, scale = weight[:, 7] * (scale[:, 0] > 0), scale[:, 0]
    np.testing.assert_allclose(q[:, 7] * scale, np.clip(alive, LOW * scale, HIGH * scale), atol=scale.max())


def test_no_inputs_at_all_are_plain_rounding() -> None:
    weight, _ = layer()
    gram = grams.damp(np.zeros((COLUMNS, COLUMNS)))
    scale = compensated.search_scales(weight, gram.astype(np.float32))
    np.testing.assert_array_equal(compensated.gptq(weight, Factor.of(gram), scale), compensated.round_to(weight, scale))
