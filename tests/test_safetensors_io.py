"""Our safetensors files against the safetensors library, both ways."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray

from whisper_factory import safetensors_io
from whisper_factory.errors import UserError

TENSORS: dict[str, NDArray[Any]] = {
    "b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.array([1, -1, 7], np.int8),
    "scale": np.array([0.5], np.float32), "none": np.zeros((0, 4), np.uint8), "scalar": np.array(3, np.int64),
}
LAYOUT = {name: (array.dtype, array.shape) for name, array in TENSORS.items()}


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    safetensors_io.write(tmp_path / "x", LAYOUT, reversed(TENSORS.items()))
    found = safetensors.numpy.load_file(tmp_path / "x")
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_the_order_given_does_not_show(tmp_path: Path) -> None:
    safetensors_io.write(tmp_path / "x", LAYOUT, TENSORS.items())
    safetensors_io.write(tmp_path / "y", dict(reversed(LAYOUT.items())), reversed(TENSORS.items()))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    half = torch.linspace(-3, 3, 7).to(torch.bfloat16)
    tensors = {name: torch.from_numpy(array) for name, array in TENSORS.items()}
    safetensors.torch.save_file({**tensors, "half": half}, tmp_path / "x", metadata={"format": "pt"})
    found = safetensors_io.Tensors(tmp_path / "x")
    assert found.keys() == {*TENSORS, "half"}
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert not found[name].flags.writeable
    assert found["half"].dtype == np.float32
    np.testing.assert_array_equal(found["half"], half.float().numpy())


@pytest.mark.parametrize(("tensors", "said"), [
    ({**TENSORS, "b": TENSORS["b"].T}, "b is float16"),
    ({**TENSORS, "a": TENSORS["a"].astype(np.int16)}, "a is int16"),
    ({"a": TENSORS["a"]}, "never written: b, none, scalar, scale"),
])
def test_what_is_not_as_laid_out_is_refused(tmp_path: Path, tensors: dict[str, NDArray[Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        safetensors_io.write(tmp_path / "x", LAYOUT, tensors.items())


@pytest.mark.parametrize("entry", [
    {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]},
    {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]},
    {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
    {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]},
    {"dtype": "F32", "data_offsets": [0, 4]},
    [],
])
def test_a_lying_header_is_refused(tmp_path: Path, entry: Any) -> None:
    header = json.dumps({"x": entry}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(UserError, match="not a safetensors file, or is cut short"):
        safetensors_io.Tensors(tmp_path / "x")


def test_what_is_heard_is_the_file(tmp_path: Path) -> None:
    layout: safetensors_io.Layout = {"b": ("int8", (3,)), "a": ("float32", (2, 2)), "c": ("float16", (5,))}
    arrays = {name: np.ones(shape, dtype) for name, (dtype, shape) in layout.items()}
    heard: list[bytes] = []
    order = safetensors_io.in_order(layout)
    assert order == ["a", "c", "b"]
    safetensors_io.write(tmp_path / "x", layout, ((name, arrays[name]) for name in order),
                         lambda data: heard.append(bytes(data)))
    assert b"".join(heard) == (tmp_path / "x").read_bytes()
    with pytest.raises(ValueError, match="b comes out of order"):
        safetensors_io.write(tmp_path / "x", layout, ((name, arrays[name]) for name in layout), heard.append)
