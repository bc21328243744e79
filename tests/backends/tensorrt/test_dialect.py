"""Quantised weights as DequantizeLinear reads them: by ONNX's own reference, and by TensorRT's parser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest

from tests.backends.onnxruntime.making import make_checkpoint
from tests.tiny_model import tiny_weights
from whisper_factory.backends.onnx_graph.graph import Graph, WeightFile
from whisper_factory.backends.tensorrt.dialect import TensorRTDialect
from whisper_factory.quantization.weight_only import dequantize
from whisper_factory.whisper.checkpoint import Checkpoint


def matrix(directory: Path, precision: str, q: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    checkpoint = Checkpoint.open(make_checkpoint(directory / "checkpoint", tiny_weights(), precision))
    with WeightFile(directory / "g.weights") as weights:
        graph = Graph("g", weights, 21, contrib=False)
        made = TensorRTDialect(graph, checkpoint).quantized("linear", q, scale, 8 if precision == "int8" else 4)
        graph.output(made, np.float16, q.shape[::-1])
        graph.save(directory / "g.onnx")
    return onnx.load(str(directory / "g.onnx"))


@pytest.mark.parametrize(("precision", "top", "group"), [
    ("int8", 128, 0), ("int4", 8, 0), ("int4_g128", 8, 128), ("int4_g32", 8, 32)])
@pytest.mark.parametrize("ins", [128, 384])
def test_a_matrix_is_integers_times_scales(tmp_path: Path, precision: str, top: int, group: int, ins: int) -> None:
    rng = np.random.default_rng(top)
    q = rng.integers(-top, top, (6, ins), dtype=np.int8)
    scale = rng.random((6, ins // group) if group else 6, np.float32) + 0.1
    model = matrix(tmp_path, precision, q, scale)
    (found,) = onnx.reference.ReferenceEvaluator(model).run(None, {})
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), dequantize(q, scale).T, rtol=2e-3)


def test_a_row_of_zeros_has_a_scale_all_the_same(tmp_path: Path) -> None:
    """TensorRT's parser refuses scales that are not positive."""
    q = np.zeros((2, 64), np.int8)
    model = matrix(tmp_path, "int8", q, np.array([0.0, 1.0], np.float32))
    (scales,) = (onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if "scale" in tensor.name)
    assert (scales > 0).all()
    assert not onnx.reference.ReferenceEvaluator(model).run(None, {})[0].any()
