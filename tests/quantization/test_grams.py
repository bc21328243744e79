"""Covariances, damped and taken apart."""

from __future__ import annotations

import numpy as np
import pytest

from tests.quantization.test_compensated import COLUMNS, layer
from whisper_factory.quantization import grams
from whisper_factory.quantization.grams import Factor


def test_a_factor_is_of_the_inverse() -> None:
    _, gram = layer()
    factor = Factor.of(gram)
    turned = gram[np.ix_(factor.order, factor.order)]
    upper = factor.upper.astype(np.float64)
    np.testing.assert_allclose(upper.T @ upper @ turned, np.eye(COLUMNS), atol=1e-3)
    np.testing.assert_allclose(np.tril(factor.upper, -1), 0, atol=1e-6)


def test_a_covariance_that_cannot_be_used() -> None:
    _, gram = layer()
    with pytest.raises(grams.SingularGram, match="not finite"):
        grams.damp(np.where(np.eye(COLUMNS), np.nan, gram))
    with pytest.raises(grams.SingularGram, match="not positive"):
        Factor.of(gram - 2 * np.diag(np.diag(gram)))
