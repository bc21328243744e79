"""Rows of the table that the head multiplies by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from whisper_factory.backends.onnx_graph.embedding import TokenEmbedding
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.quantization.weight_only import quantize
from whisper_factory.whisper.checkpoint import Checkpoint

Lookup = Callable[[str], Path]


def opened(engine: Path) -> TokenEmbedding:
    spec = EngineSpec.load(engine)
    return TokenEmbedding(engine / "token_embedding.weights", spec.dimensions, spec.precision)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "int4"])
def test_rows(engines: Lookup, checkpoints: Lookup, precision: str) -> None:
    table = np.array(Checkpoint.open(checkpoints(precision)).tensor("decoder.token_embedding.weight"))
    if precision.startswith("int"):
        q, scale = quantize(table.reshape(-1, 128), 8)
        table = (q * scale[:, None]).reshape(table.shape)
    tokens = np.array([[0, 1, 1], [51863, 25000, 7]])
    rows = opened(engines(precision)).rows(tokens)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, table[tokens].astype(np.float32))


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
