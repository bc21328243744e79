"""Safetensors files, read through a memory map and written tensor by tensor.

A model is never held whole: reading gives views of the mapped file, and writing takes tensors one at a
time, in any order, to places that their shapes alone decide. Bytes depend on nothing but the tensors. (The
safetensors library's NumPy interface writes only whole models, and does not read bfloat16; the tests hold the two
against each other.)

The format: a little-endian u64, that many bytes of JSON {name: {dtype, shape, data_offsets}}, the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from whisper_factory.errors import UserError

Layout = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]  # name -> dtype, shape

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
          "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}


class Tensors(Mapping[str, NDArray[Any]]):
    """A file's tensors, as read-only views made when asked for; bfloat16 arrives as float32 (a copy)."""

    def __init__(self, path: Path):
        """Map `path` and check its header.

        Raises:
            UserError: it is not a safetensors file, or is cut short.
        """
        try:
            mapped = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # plain: slices of a memmap are slow
            length = int(mapped[:8].view("<u8")[0])
            header = json.loads(mapped[8 : 8 + length].tobytes())
            header.pop("__metadata__", None)
            self._data = mapped[8 + length :]
            self._entries = {name: _entry(entry, self._data.size) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise UserError(f"'{path}' is not a safetensors file, or is cut short ({error}); get it again") from error

    def __getitem__(self, name: str) -> NDArray[Any]:
        dtype, shape, start, end = self._entries[name]
        array: NDArray[Any] = self._data[start:end].view(DTYPES[dtype]).reshape(shape)
        if dtype == "BF16":  # the upper half of a float32
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _entry(entry: dict[str, Any], size: int) -> tuple[str, tuple[int, ...], int, int]:
    """A header entry as (dtype, shape, start, end), held against the size of the data."""
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype}")
    if any(number < 0 for number in (*shape, start)):
        raise ValueError("a negative size")
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if end - start != needed or end > size:
        raise ValueError(f"a tensor at bytes {start} to {end} of {size}, {needed} long by its shape")
    return dtype, shape, start, end


def size(layout: Layout) -> int:
    """Bytes of the tensors."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in layout.values())


def in_order(layout: Layout) -> list[str]:
    """The tensors as they lie in a file: widest dtype first, then by name, so that every tensor is aligned."""
    return sorted(layout, key=lambda name: (-np.dtype(layout[name][0]).itemsize, name))


def write(path: Path, layout: Layout, tensors: Iterable[tuple[str, NDArray[Any]]],
          heard: Callable[[bytes | memoryview], object] | None = None) -> None:
    """Write every tensor of `layout`, one at a time. The same layout and values give the same bytes.

    Args:
        tensors: in any order, or with `heard` in the file's.
        heard: is given the file's bytes, in order, as they are written: for a digest, say.

    Raises:
        ValueError: a tensor is missing, given twice, out of order, or not as laid out.
    """
    header, places, end = {}, {}, 0
    for name in in_order(layout):
        dtype, shape = np.dtype(layout[name][0]), layout[name][1]
        places[name], end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [places[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = len(text).to_bytes(8, "little") + text
    with path.open("wb") as file:
        file.write(text)
        if heard:
            heard(text)
        for name, array in tensors:
            dtype, shape = np.dtype(layout[name][0]), layout[name][1]
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, laid out as {dtype}{list(shape)}")
            place = len(text) + places.pop(name)
            if heard and place != file.tell():
                raise ValueError(f"{name} comes out of order")
            file.seek(place)
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            file.write(data)
            if heard:
                heard(data)
    if places:
        raise ValueError(f"never written: {', '.join(sorted(places))}")
