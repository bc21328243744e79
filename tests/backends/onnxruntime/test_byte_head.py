"""The head in bytes and the ranking in stages, against the numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.backends.onnxruntime.making import make_checkpoint
from tests.tiny_model import tiny_weights
from whisper_factory.backends.onnx_graph.embedding import NAME
from whisper_factory.backends.onnx_graph.graph import BLOCKED_OPSET, Graph, WeightFile
from whisper_factory.backends.onnx_graph.runtime import open_session
from whisper_factory.backends.onnxruntime import byte_head
from whisper_factory.backends.onnxruntime.pack import OnnxRuntimeDialect
from whisper_factory.whisper.checkpoint import Checkpoint

Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Its embedding has channels of very different sizes, one of them nothing but zeros."""
    weights = tiny_weights()
    table, state = np.array(weights.tensors[f"{NAME}.weight"]), weights.dimensions.n_text_state
    sizes = np.where(np.arange(state) % 16 == 3, 30.0, 1.0)
    sizes[5] = 0
    weights.tensors[f"{NAME}.weight"] = (table * sizes).astype(table.dtype)
    rng = np.random.default_rng(0)
    for part, values in (("weight", 10 * rng.random(state)), ("bias", rng.standard_normal(state))):
        weights.tensors[f"{byte_head.NORM}.{part}"] = values.astype(np.float32)
    return Checkpoint.open(make_checkpoint(tmp_path_factory.mktemp("checkpoint"), weights, "int8"))


def logits_of(checkpoint: Checkpoint, folder: Path, x: Array, bias: Array) -> Array:
    """What the graph makes of x [rows, state]."""
    vocabulary, state = checkpoint.tensor(f"{NAME}.weight").shape
    with WeightFile(folder / "g.weights") as weights, WeightFile(folder / "table") as table:
        graph = Graph("g", weights, BLOCKED_OPSET)
        given = graph.input("x", np.float32, ["rows", state])
        byte_head.write_logits(OnnxRuntimeDialect(graph, checkpoint, True), table, given,
                               graph.input("bias", np.float32, [vocabulary]))
        graph.output("logits", np.float32, ["rows", vocabulary])
        graph.save(folder / "g.onnx")
    found: Array = open_session(folder / "g.onnx", 2).run(None, {"x": x, "bias": bias})[0]
    return found


def test_logits(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Large channels take nothing from the others, nor do large rows; what may not be is minus infinity."""
    table, gain, shift = (np.array(checkpoint.tensor(name), np.float64)
                          for name in (f"{NAME}.weight", f"{byte_head.NORM}.weight", f"{byte_head.NORM}.bias"))
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((9, table.shape[1])) * 10.0 ** rng.integers(-1, 3, (9, 1))).astype(np.float32)
    bias = np.zeros(len(table), np.float32)
    bias[7] = -np.inf
    centred = x - x.mean(axis=1, keepdims=True)
    states = centred / np.sqrt((centred.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-5) * gain + shift
    found, expected = logits_of(checkpoint, tmp_path, x, bias), states @ table.T + bias
    assert (found[:, 7] == -np.inf).all()
    error = np.delete(found, 7, axis=1) - np.delete(expected, 7, axis=1)
    assert np.sqrt((error**2).mean()) < 0.01 * (states @ table.T).std()


@pytest.mark.parametrize("vocabulary", [51864, 51865, 51866])  # groups of 24, of 23, and none
@pytest.mark.parametrize("count", [1, 5])
def test_ranking(tmp_path: Path, vocabulary: int, count: int) -> None:
    """The best of each row, best first; the lower of two equal tokens first, within a group and across groups."""
    with WeightFile(tmp_path / "none.weights") as weights:
        graph = Graph("g", weights)
        graph.input("logits", np.float32, ["rows", vocabulary])
        byte_head.write_ranking(graph, graph.input("count", np.int64, [1]), vocabulary)
        graph.output("ranked_tokens", np.int64, ["rows", "count"])
        graph.output("ranked_logprobs", np.float32, ["rows", "count"])
        graph.save(tmp_path / "g.onnx")
    logits = np.random.default_rng(2).standard_normal((6, vocabulary)).astype(np.float32)
    logits[0, [3, 4, 900, 50000, 50001, 51863]] = 9.0
    logits[1, -4:] = (20.0, 30.0, 10.0, 30.0)
    logits[2] = -np.inf
    logits[2, 11::9000] = np.arange(6)
    tokens, logprobs = open_session(tmp_path / "g.onnx", 2).run(None, {"logits": logits, "count": np.array([count])})
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    assert np.array_equal(tokens, expected)
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(logprobs, np.take_along_axis(exact, expected, axis=1), atol=1e-5)
