"""Rows of the table that the head multiplies by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.backends.onnxruntime.making import build
from whisper_factory.backends.onnx_graph.embedding import TokenEmbedding
from whisper_factory.backends.onnxruntime.byte_head import factors
from whisper_factory.backends.onnxruntime.sizes import cross_in_bytes
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.quantization.weight_only import quantize
from whisper_factory.whisper.checkpoint import Checkpoint

Lookup = Callable[[str], Path]
TOKENS = np.array([[0, 1, 1], [51863, 25000, 7]])


def opened(engine: Path) -> TokenEmbedding:
    spec = EngineSpec.load(engine)
    return TokenEmbedding(engine / "token_embedding.weights", spec.dimensions, spec.precision, cross_in_bytes(spec))


@pytest.fixture(scope="module")
def one_window(checkpoints: Lookup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 engine whose table has a scale for each block."""
    return build(checkpoints("int8"), tmp_path_factory.mktemp("one") / "engine", max_batch_size=1)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_rows(engines: Lookup, checkpoints: Lookup, precision: str) -> None:
    table = np.array(Checkpoint.open(checkpoints(precision)).tensor("decoder.token_embedding.weight"))
    rows = opened(engines(precision)).rows(TOKENS)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, table[TOKENS].astype(np.float32))


def test_rows_of_integers(one_window: Path, checkpoints: Lookup) -> None:
    table = np.array(Checkpoint.open(checkpoints("int8")).tensor("decoder.token_embedding.weight"))
    q, scale = quantize(table.reshape(-1, 128), 8)
    rows = opened(one_window).rows(TOKENS)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, (q * scale[:, None]).reshape(table.shape)[TOKENS])


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_whole_rows_of_balanced_integers(engines: Lookup, checkpoints: Lookup, precision: str) -> None:
    """With their factors they are the table's, to half a step of a row."""
    checkpoint = Checkpoint.open(checkpoints(precision))
    table, balance = np.array(checkpoint.tensor("decoder.token_embedding.weight"), np.float32), factors(checkpoint)
    rows = opened(engines(precision)).rows(TOKENS)
    assert rows.dtype == np.float32
    steps = np.abs(table / balance).max(axis=1)[TOKENS, None] / 128
    assert (np.abs(rows - table[TOKENS] / balance) <= 1.001 * steps).all()  # the largest is cut off by a whole one
    assert np.abs(rows - table[TOKENS] / balance).mean() < 0.26 * steps.mean()


def test_what_is_no_token(engines: Lookup) -> None:
    for token in (-1, 51864):
        with pytest.raises(ValueError, match="0 to 51863"):
            opened(engines("int8")).rows(np.array([[5, token]]))


def test_a_damaged_file(engines: Lookup, tmp_path: Path) -> None:
    spec = EngineSpec.load(engines("int8"))
    with pytest.raises(UserError, match="cannot be opened"):
        TokenEmbedding(tmp_path / "none", spec.dimensions, spec.precision)
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(UserError, match=r"5 bytes, not \d+; build the engine again"):
        TokenEmbedding(tmp_path / "short", spec.dimensions, spec.precision)
