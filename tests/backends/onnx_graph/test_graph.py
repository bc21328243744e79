"""Writing graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from whisper_factory.backends.onnx_graph.graph import Graph, WeightFile


def doubled(directory: Path) -> Path:
    """y = x @ w + w2, where w2 is the bytes of w in another shape."""
    with WeightFile(directory / "g.weights") as weights:
        graph = Graph("g", weights)
        graph.weight("pad", np.ones(3, np.float16))
        w = graph.weight("w", np.arange(4, dtype=np.float32).reshape(2, 2).T)
        row = graph.external("row", np.dtype(np.float32), (1, 4), graph.region(w))
        x = graph.input("x", np.float32, ["n", 2])
        product = graph.node("MatMul", [x, w], "product")
        flat = graph.node("Reshape", [row, graph.ints(2, 2)], "flat")
        graph.node("Add", [product, flat], "y")
        graph.output("y", np.float32, ["n", 2])
        graph.save(directory / "g.onnx")
    return directory / "g.onnx"


def test_runs(tmp_path: Path) -> None:
    session = ort.InferenceSession(str(doubled(tmp_path)), providers=["CPUExecutionProvider"])
    x, w = np.array([[1, 2], [3, 4]], np.float32), np.array([[0, 2], [1, 3]], np.float32)
    assert np.array_equal(session.run(None, {"x": x})[0], x @ w + w)


def test_versions_that_the_oldest_runtime_reads(tmp_path: Path) -> None:
    model = onnx.load(str(doubled(tmp_path)))
    assert model.ir_version == 9
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "com.microsoft": 1}


def test_weights_are_aligned_and_in_c_order(tmp_path: Path) -> None:
    with WeightFile(tmp_path / "w") as weights:
        small = weights.append(np.ones(3, np.float16))
        large = weights.append(np.ones(2048, np.float16))
        last = weights.append(np.arange(4, dtype=np.float32).reshape(2, 2).T)
    assert (small, large, last) == (("w", 0, 6), ("w", 4096, 4096), ("w", 8192, 16))
    assert np.fromfile(tmp_path / "w", np.float32, offset=8192).tolist() == [0, 2, 1, 3]


def test_constants_are_named_once(tmp_path: Path) -> None:
    with WeightFile(tmp_path / "w") as weights:
        graph = Graph("g", weights)
        assert graph.ints(0, -1) == graph.ints(0, -1) != graph.ints(0, 1)
        assert graph.index(0) != graph.ints(0)
        graph.weight("a", np.ones(1, np.float32))
        with pytest.raises(ValueError, match="two constants named a"):
            graph.weight("a", np.ones(1, np.float32))
