"""A step of the decoder, bound to the memory that it reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph import runtime

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[Any]
# An input of decoders with cross-attention in bytes (byte_kv.py): how a window's queries are laid out, as products of a
# row each or as one. Named here, as running an engine need not import what writes graphs.
AXES = "query_axes"
APART, TOGETHER = (-1, 1), (1, -1)


def bind_input(binding: onnxruntime.IOBinding, name: str, array: Array) -> None:
    """Bind memory, not its present content: the array must outlive the binding and stay where it is."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def bind_output(binding: onnxruntime.IOBinding, name: str, array: Array) -> None:
    """As `bind_input`."""
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


class Caches(NamedTuple):
    """KV caches' tensors of the windows and rows of a step, as they lie. Each layer's keys, then its values."""

    cross: list[Array]
    beside: list[Array]  # of cross-attention's bytes: each tensor's scales, then each layer's sums; else none
    past: list[Array]

    def cross_by_name(self) -> list[tuple[str, Array]]:
        """Cross-attention's tensors by their names in the graphs: keys and values, and what those in bytes have beside.
        """
        names = _names("cross", self.cross)
        found = [*zip(names, self.cross, strict=True)]
        if self.beside:
            names = [*(f"{name}_scale" for name in names), *(f"{name}_sum" for name in names[::2])]
            found += zip(names, self.beside, strict=True)
        return found

    def window(self, place: int, row: int) -> Caches:
        """Of one window, and one row."""
        cross, beside = ([tensor[place:place + 1] for tensor in tensors] for tensors in (self.cross, self.beside))
        return Caches(cross, beside, [tensor[row:row + 1] for tensor in self.past])


def _names(kind: str, tensors: list[Array]) -> list[str]:
    return [f"{kind}_{'kv'[index % 2]}_{index // 2}" for index in range(len(tensors))]


class BoundStep:
    """Steps of so many new tokens, of rows as they lie now: good until a buffer moves. What was asked for once, and is
    not now, would be written too, where it lay: so it is asked for in one way only."""

    def __init__(self, decoder: onnxruntime.InferenceSession, caches: Caches, new: int, state: int,
                 asked: frozenset[str], lengths: int) -> None:
        """
        Args:
            state: of the model.
            asked: the outputs.
            lengths: of rows, that the graph takes: one for all, or each row's.
        """
        self.new, self.asked = new, asked
        self._decoder, self._binding = decoder, decoder.io_binding()
        self._embedded = np.empty((len(caches.past[0]), new, state), np.float32)
        self._lengths, self._count = np.empty(lengths, np.int64), np.empty(1, np.int64)
        for name, array in (("embedded", self._embedded), ("past_length", self._lengths), ("count", self._count)):
            bind_input(self._binding, name, array)
        if caches.beside:
            self._axes = np.array(APART if runtime.multiplies_rows_as_they_lie() else TOGETHER, np.int64)
            bind_input(self._binding, AXES, self._axes)
        for name, array in caches.cross_by_name():  # matrices of bytes have an axis of queries
            bind_input(self._binding, name, array[:, :, None] if array.dtype == np.int8 else array)
        for name, array in zip(_names("past", caches.past), caches.past, strict=True):
            bind_input(self._binding, name, array)
            bind_output(self._binding, name.replace("past", "present"), array)  # the same memory: updated in place

    def run(self, embedded: NDArray[np.float32], lengths: NDArray[np.int64] | int, bias: NDArray[np.float32],
            outputs: dict[str, Array], count: int = 1) -> None:
        """Feed embeddings of tokens [rows, new, state] to rows of so many tokens, and fill `outputs`."""
        self._embedded[:], self._lengths[:], self._count[0] = embedded, lengths, count
        bind_input(self._binding, "bias", bias)
        for name, array in outputs.items():
            bind_output(self._binding, name, array)
        self._decoder.run_with_iobinding(self._binding)
