"""Products of many rows, multiplied by the operator, against the numbers."""

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
from whisper_factory.backends.onnx_graph.unrounded import write_unrounded
from whisper_factory.backends.onnxruntime.many_rows import ManyRowsDialect
from whisper_factory.whisper.checkpoint import Checkpoint

Array = NDArray[np.float32]
BLOCK = "encoder.blocks.0"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(make_checkpoint(tmp_path_factory.mktemp("checkpoint"), tiny_weights(), "int8"))


def made(checkpoint: Checkpoint, folder: Path, write: Callable[[ManyRowsDialect, str], str], width: int) -> Path:
    """A graph of what `write` makes of x [batch, rows, width]."""
    with WeightFile(folder / "g.weights") as weights:
        graph = Graph("g", weights, BLOCKED_OPSET)
        y = write(ManyRowsDialect(graph, checkpoint), graph.input("x", np.float32, ["batch", "rows", width]))
        graph.output(y, np.float32, ["batch", "rows", "out"])
        graph.save(folder / "g.onnx")
    return folder / "g.onnx"


def run(graph: Path, x: Array) -> Array:
    result: Array = runtime.open_session(graph, 1, fuse_dequantizing=False).run(None, {"x": x})[0]
    return result


def test_rows_of_any_size(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """One-hot rows survive rounding, whatever their sizes: so every weight is read, and every row has its own scale."""
    name = f"{BLOCK}.attn.out"
    graph = made(checkpoint, tmp_path, lambda dialect, x: dialect.linear(x, name), 128)
    sizes = np.float32(10.0) ** (np.arange(128) % 9 - 4) * np.where(np.arange(128) % 2, 1, -1)
    x = np.stack([np.eye(128, dtype=np.float32) * sizes[:, None].astype(np.float32), np.zeros((128, 128), np.float32)])
    np.testing.assert_allclose(run(graph, x), layer(checkpoint, name, x), rtol=1e-4, atol=1e-6)


def test_error_of_rounding(checkpoint: Checkpoint, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2, 30, 128)).astype(np.float32)
    x[:, ::3] *= 1000  # beside which the other rows would be lost at one scale for all
    for part in ("query", "key", "value"):
        name = f"{BLOCK}.attn.{part}"
        graph = made(checkpoint, tmp_path, lambda dialect, x, name=name: dialect.linear(x, name), 128)
        expected = layer(checkpoint, name, x)
        error = np.abs(run(graph, x) - expected).mean(axis=2) / np.abs(expected).mean(axis=2)
        assert error.max() < 0.03


def test_feed_forward_in_parts(checkpoint: Checkpoint, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((1, 40, 128)).astype(np.float32)
    graph = made(checkpoint, tmp_path, lambda dialect, x: dialect.feed_forward(x, f"{BLOCK}.mlp"), 128)
    hidden = layer(checkpoint, f"{BLOCK}.mlp.0", x)
    erf = np.vectorize(math.erf)
    expected = layer(checkpoint, f"{BLOCK}.mlp.2", (hidden * (1 + erf(hidden / 2**0.5)) / 2).astype(np.float32))
    assert np.abs(run(graph, x) - expected).mean() < 0.03 * np.abs(expected).mean()
    write_unrounded(graph, tmp_path / "exact.onnx", f"{BLOCK}.mlp.2.output")
    np.testing.assert_allclose(run(tmp_path / "exact.onnx", x), expected, atol=2e-5)


def test_what_is_read_twice_is_rounded_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def write(dialect: ManyRowsDialect, x: str) -> str:
        q, k, v = dialect.projections(x, f"{BLOCK}.attn")
        return dialect.graph.node("Sum", [q, k, v], "y")

    graph = made(checkpoint, tmp_path, write, 128)
    kinds = [node.op_type for node in onnx.load(graph, load_external_data=False).graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("MatMulIntegerToFloat")) == (1, 3)


@pytest.mark.parametrize("flags", ["fpu avx2 avx512_vnni", "fpu avx2 avx_vnni", "fpu avx2", None])
def test_processors_that_saturate_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str | None) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n", encoding="ascii")
    monkeypatch.setattr(runtime, "CPUINFO", tmp_path / "cpuinfo")
    assert runtime.adds_bytes_exactly() == ("vnni" in (flags or ""))


@pytest.mark.parametrize(("machine", "flags", "as_they_lie"), [
    ("x86_64", "avx2 avx512_vnni", True), ("x86_64", "avx2", True), ("x86_64", "avx512_vnni amx_int8", False),
    ("aarch64", "asimddp i8mm", False)])
def test_processors_that_pack_matrices_for_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str,
                                                 flags: str, as_they_lie: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n", encoding="ascii")
    monkeypatch.setattr(runtime, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    runtime.multiplies_rows_as_they_lie.cache_clear()
    assert runtime.multiplies_rows_as_they_lie() is as_they_lie
    monkeypatch.undo()
    runtime.multiplies_rows_as_they_lie.cache_clear()
