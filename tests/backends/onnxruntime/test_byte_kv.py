"""Cross-attention over keys and values in bytes, against the numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.backends.onnxruntime.making import make_spec
from tests.tiny_model import tiny_dimensions
from whisper_factory.backends import onnxruntime
from whisper_factory.backends.onnx_graph.graph import BLOCKED_OPSET, Graph, WeightFile
from whisper_factory.backends.onnx_graph.runtime import open_session
from whisper_factory.backends.onnxruntime import binding, byte_kv, sizes
from whisper_factory.backends.onnxruntime.kvcache import KVMemory
from whisper_factory.backends.onnxruntime.shorter import Part

SIZES = tiny_dimensions(n_text_layer=1, n_text_state=128, n_audio_state=128)
HEADS, SIZE = SIZES.n_text_head, SIZES.head_size
Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Array, Array, Array], Array]:
    """Queries, keys and values, [windows, length, state] each, through what the encoder and the decoder are given: each
    query by itself and a window's together, to the same bits. If wished, one window in a place of more positions."""
    folder = tmp_path_factory.mktemp("graphs")
    with WeightFile(folder / "none.weights") as weights:
        rounding, attending = (Graph(name, weights, BLOCKED_OPSET) for name in ("rounding", "attending"))
        for part in ("key", "value"):
            flat = rounding.input(part, np.float32, ["batch", "length", SIZES.n_text_state])
            byte_kv.round_kv(rounding, flat, part, f"cross_{part[0]}_0", SIZES)
        rounding.save(folder / "rounding.onnx")
        byte_kv.inputs(attending, SIZES)
        queries = attending.input("queries", np.float32, ["windows", "count", SIZES.n_text_state])
        mixed = byte_kv.attend(attending, queries, 0, "mixed", SIZES)
        attending.output(mixed, np.float32, ["windows", "count", SIZES.n_text_state])
        attending.save(folder / "attending.onnx")
    first, second = (open_session(folder / f"{name}.onnx", 2) for name in ("rounding", "attending"))

    def attend(queries: Array, keys: Array, values: Array, places: int = 0) -> Array:
        rounded = dict(zip((output.name for output in first.get_outputs()),
                           first.run(None, {"key": keys, "value": values}), strict=True))
        if places:
            rounded = {name: placed(name, array, keys.shape[1], places) for name, array in rounded.items()}
        shaped = {name: array[:, :, None] if array.dtype == np.int8 else array for name, array in rounded.items()}
        found: list[Array] = [second.run(None, {"queries": queries, binding.AXES: np.array(axes), **shaped})[0]
                              for axes in (binding.APART, binding.TOGETHER)]
        np.testing.assert_array_equal(*found)
        return found[0]

    return attend


def placed(name: str, array: NDArray[Any], positions: int, places: int) -> NDArray[Any]:
    """Of a window, in a place of so many positions, where any bytes were before."""
    shape = [places if size == positions else size for size in array.shape]
    place = np.random.default_rng(0).integers(-128, 128, shape).astype(array.dtype)
    part = Part(name, place, positions)
    part.written[:] = array
    part.spread()
    return place


def exact(queries: Array, keys: Array, values: Array) -> Array:
    """In float64."""
    q, k, v = (x.reshape(*x.shape[:2], HEADS, SIZE).transpose(0, 2, 1, 3).astype(np.float64)
               for x in (queries, keys, values))
    scores = np.exp(q @ k.swapaxes(2, 3) / SIZE**0.5)
    mixed = scores / scores.sum(axis=3, keepdims=True) @ v
    found: Array = mixed.transpose(0, 2, 1, 3).reshape(queries.shape)
    return found


@pytest.mark.parametrize("beams", [1, 4])
def test_channels_and_windows_of_any_size(attention: Callable[[Array, Array, Array], Array], beams: int) -> None:
    """A channel that is a thousand times another, or a window, has its own scale; so has a query."""
    rng = np.random.default_rng(beams)
    channels = (10.0 ** rng.integers(-2, 2, SIZES.n_text_state)).astype(np.float32)
    windows = np.array([0.1, 1.0, 30.0], np.float32)[:, None, None]
    keys = rng.standard_normal((3, 200, SIZES.n_text_state), np.float32) * channels * windows
    values = rng.standard_normal(keys.shape, np.float32) * channels * windows
    queries = rng.standard_normal((3, beams, SIZES.n_text_state), np.float32) / channels / windows
    expected = exact(queries, keys, values)
    error = np.abs(attention(queries, keys, values) - expected) / np.abs(expected).mean(axis=(0, 1))
    assert error.mean() < 0.05


def test_zeros(attention: Callable[[Array, Array, Array], Array]) -> None:
    """Of queries and keys: the mean of the values comes out, and of values in the middle, zeros."""
    values = np.zeros((1, 50, SIZES.n_text_state), np.float32)
    values[:, :25, 0] = 1.0
    nothing = np.zeros_like(values)
    found = attention(nothing[:, :2], nothing, values)
    assert found[0, :, 0] == pytest.approx(0.5, abs=0.005)
    assert not found[:, :, 1:].any()


@pytest.mark.parametrize("size", [0.0, 1e-12, 1.0, 1e6, 1e15])
def test_a_place_may_be_longer_than_its_window(attention: Callable[..., Array], size: float) -> None:
    """Whatever the queries' scale: the least there is, or such that a score is no number of float32."""
    rng = np.random.default_rng(0)
    keys, values = (rng.standard_normal((1, 99, SIZES.n_text_state), np.float32) for _ in range(2))
    queries = np.float32(size) * rng.standard_normal((1, 3, SIZES.n_text_state), np.float32)
    wanted = attention(queries, keys, values)
    assert wanted.any()
    np.testing.assert_allclose(attention(queries, keys, values, 250), wanted, atol=1e-5)


def test_engines_for_several_windows_have_bytes_and_others_floats() -> None:
    for precision, batch, expected in (("int8", 3, True), ("int4", 2, True), ("int8", 1, False), ("float32", 3, False)):
        spec = make_spec(SIZES, precision, max_batch_size=batch)
        assert sizes.cross_in_bytes(spec) is expected
        block = KVMemory(spec).open(1, 10)
        assert {tensor.dtype for tensor in block.cross} == {np.dtype(np.int8 if expected else np.float32)}
        assert sizes.cross_kv_bytes(spec, 1, 10) == sum(
            tensor.nbytes for tensor in (*block.cross, *(other for other in block.beside if other.ndim == 5)))


@pytest.mark.parametrize("mode", ["contiguous", "paged"])
def test_scales_and_sums_stay_with_their_windows(mode: str) -> None:
    block = KVMemory(make_spec(SIZES, "int8", mode)).open(3, 10)
    for tensor in (*block.cross, *block.beside):
        tensor[:] = np.arange(1, 4).reshape(3, *[1] * (tensor.ndim - 1))
    bound = [tensor.ctypes.data for tensor in block.beside]
    block.select_windows(np.array([2, 0, 1]))
    assert [tensor.ctypes.data for tensor in block.beside] == bound  # an address that was bound stays good
    block.select_rows(np.arange(2), 0)
    block.select_windows(np.array([0, 2]))
    other = block.split(1, 0)
    for part, number in ((block, 3), (other, 2)):
        assert part.windows == 1
        assert all((tensor == number).all() for tensor in (*part.cross, *part.beside))
        assert [keys.shape for keys in part.cross] == [(1, HEADS, SIZE, 10), (1, HEADS, 10, SIZE)]


def test_an_engine_hears_windows_as_alone(engines: Callable[[str], Path]) -> None:
    """Its logits are those of the float32 engine but for rounding, whatever else is in the batch."""
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((3, SIZES.n_mels, 400), np.float32)
    prompt = np.array([[5, 6]])
    logits = {}
    for precision in ("float32", "int8"):
        engine = onnxruntime.load(engines(precision), 1)
        logits[precision] = engine.encode(mel).decode(np.repeat(prompt, 3, axis=0))
        alone = engine.encode(mel[1:2]).decode(prompt)
        np.testing.assert_allclose(logits[precision][1:2], alone, atol=2e-3)
    spread = logits["float32"].std()
    assert np.abs(logits["int8"] - logits["float32"]).mean() < 0.1 * spread
