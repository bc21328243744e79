"""Packed integers, read back the way the operator's documentation says, and by the operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_factory.backends.onnx_graph.graph import Graph, WeightFile
from whisper_factory.backends.onnxruntime.pack import matmul_nbits, pack_integers, repeat_scales
from whisper_factory.quantization.weight_only import dequantize


@given(bits=st.sampled_from([8, 4]), block=st.sampled_from([16, 32]), rows=st.integers(1, 4),
       blocks=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_integers_come_back(bits: int, block: int, rows: int, blocks: int, seed: int) -> None:
    top = 1 << (bits - 1)
    q = np.random.default_rng(seed).integers(-top, top, (rows, blocks * block), dtype=np.int8)
    packed = pack_integers(q, bits, block)
    assert packed.shape == (rows, blocks, block * bits // 8)
    flat = packed.reshape(rows, -1).astype(np.int64)
    if bits == 4:
        flat = np.stack([flat & 15, flat >> 4], axis=-1).reshape(rows, -1)
    assert np.array_equal(flat - top, q)


def test_scales_are_repeated() -> None:
    assert repeat_scales(np.array([1, 2], np.float32), 3).tolist() == [1, 1, 1, 2, 2, 2]
    assert repeat_scales(np.array([[1, 2, 3], [4, 5, 6]], np.float32), 3).tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("ins", "group"), [(48, 0), (384, 0), (384, 128), (384, 32)])  # 0: blocks of 16 and of 128
def test_the_operator_multiplies_by_them(tmp_path: Path, bits: int, ins: int, group: int) -> None:
    """One-hot activations survive accuracy level 4 but for a rounding, so every weight is read exactly."""
    rng, outs = np.random.default_rng(bits), 40
    q = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (outs, ins), dtype=np.int8)
    bias = rng.random(outs, np.float32)
    scale = rng.random((outs, ins // group) if group else outs, np.float32) + 0.5
    with WeightFile(tmp_path / "g.weights") as weights:
        graph = Graph("g", weights)
        y = matmul_nbits(graph, graph.input("x", np.float32, ["n", ins]), "linear", q, scale, bits, bias)
        graph.output(y, np.float32, ["n", outs])
        graph.save(tmp_path / "g.onnx")
    session = ort.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"])
    for x in (np.eye(ins, dtype=np.float32), np.eye(ins, dtype=np.float32)[5:6]):
        expected = x @ dequantize(q, scale).T + bias
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-4)
