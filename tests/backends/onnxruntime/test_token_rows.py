"""Products of a step's rows, multiplied by the operator, against the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.backends.onnxruntime.making import layer, make_checkpoint
from tests.tiny_model import tiny_weights
from whisper_factory.backends.onnx_graph import runtime
from whisper_factory.backends.onnx_graph.graph import BLOCKED_OPSET, Graph, WeightFile
from whisper_factory.backends.onnxruntime.token_rows import TokenRowsDialect
from whisper_factory.whisper.checkpoint import Checkpoint

Array = NDArray[np.float32]
BLOCK, STATE = "decoder.blocks.0", 128


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(make_checkpoint(tmp_path_factory.mktemp("checkpoint"), tiny_weights(), "int8"))


def run(checkpoint: Checkpoint, folder: Path, write: Callable[[TokenRowsDialect, str], str], x: Array) -> Array:
    """What the graph that `write` makes gives for x [rows, new, state]."""
    with WeightFile(folder / "g.weights") as weights:
        graph = Graph("g", weights, BLOCKED_OPSET)
        y = write(TokenRowsDialect(graph, checkpoint), graph.input("x", np.float32, ["rows", "new", STATE]))
        graph.output(y, np.float32, ["rows", "new", "out"])
        graph.save(folder / "g.onnx")
    result: Array = runtime.open_session(folder / "g.onnx", 1).run(None, {"x": x})[0]
    return result


def test_rows_of_any_size(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """One-hot rows survive rounding, whatever their sizes and signs, and rows of zeros stay zeros: every weight is
    read, and every row has a scale of its own, those of a prompt's tokens too."""
    name = f"{BLOCK}.attn.out"
    sizes = np.float32(10.0) ** (np.arange(STATE) % 9 - 4) * np.where(np.arange(STATE) % 2, 1, -1)
    hot = np.eye(STATE, dtype=np.float32) * sizes[:, None].astype(np.float32)
    x = np.concatenate([hot, np.zeros((STATE, STATE), np.float32)]).reshape(64, 4, STATE)
    found = run(checkpoint, tmp_path, lambda dialect, x: dialect.linear(x, name), x)
    np.testing.assert_allclose(found, layer(checkpoint, name, x), rtol=1e-4, atol=1e-6)


def test_layers_side_by_side(checkpoint: Checkpoint, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((30, 1, STATE)).astype(np.float32)
    x[::3] *= 1000  # beside which the other rows would be lost at one scale for all
    parts = [f"{BLOCK}.attn.{part}" for part in ("query", "key", "value")]
    found = run(checkpoint, tmp_path, lambda dialect, x: dialect.linear(x, "qkv", parts), x)
    expected = np.concatenate([layer(checkpoint, name, x) for name in parts], axis=2)
    error = np.abs(found - expected).mean(axis=2) / np.abs(expected).mean(axis=2)
    assert error.max() < 0.03


def test_feed_forward(checkpoint: Checkpoint, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((40, 1, STATE)).astype(np.float32)
    found = run(checkpoint, tmp_path, lambda dialect, x: dialect.feed_forward(x, f"{BLOCK}.mlp"), x)
    hidden = layer(checkpoint, f"{BLOCK}.mlp.0", x)
    erf = np.vectorize(math.erf)
    expected = layer(checkpoint, f"{BLOCK}.mlp.2", (hidden * (1 + erf(hidden / 2**0.5)) / 2).astype(np.float32))
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()


def test_zero_points_are_laid_out_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """One of each kind, for a block's feed-forward half and for another's."""

    def two(dialect: TokenRowsDialect, x: str) -> str:
        return dialect.feed_forward(dialect.feed_forward(x, f"{BLOCK}.mlp"), "decoder.blocks.1.mlp")

    run(checkpoint, tmp_path, two, np.zeros((2, 1, STATE), np.float32))
    kinds = [node.op_type for node in onnx.load(tmp_path / "g.onnx", load_external_data=False).graph.node]
    assert (kinds.count("Expand"), kinds.count("QuantizeLinear")) == (2, 4)
