"""8-bit products of many rows, the encoder's: MatMulIntegerToFloat, activations rounded with a scale for each row.

MatMulNBits (pack.py) is made for a token's single row. Over a window's hundreds it multiplies the same integers at
less than half the speed of this operator, which uses the processor's dot products of bytes to the full. It takes one
scale for all rows, so rows are divided by their own before it and multiplied after.

Activations are unsigned bytes around a zero point, weights signed bytes. What GELU made has hardly anything below zero,
so its zero point is low and its steps are finer.

Tensors are kept small, as the largest ones alive at once are the encoder's peak: queries, keys and values are products
of their own, and the layer between the two of a block's feed-forward half is made in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.blocks import projections_apart
from whisper_factory.backends.onnx_graph.graph import CONTRIB, Graph
from whisper_factory.backends.onnxruntime.pack import OnnxRuntimeDialect, biases, side_by_side

if TYPE_CHECKING:
    from whisper_factory.whisper.checkpoint import Checkpoint

TOP = 255
MIDDLE = 128  # the zero point of what has either sign
LOW = 32  # and of what GELU made
GELU_DEPTH = 0.17  # how far that goes below zero
TINY = 1e-8  # the least scale, a row of zeros has it


class Rounded(NamedTuple):
    """Activations in 8 bits: (integers - zero) * scale."""

    integers: str  # uint8 [batch, rows, in]
    scale: str  # float32 [batch, rows, 1]
    zero: str  # uint8 scalar


class ManyRowsDialect(OnnxRuntimeDialect):
    """The embedded backend's dialect for 8-bit products of many rows: x is [batch, rows, in] throughout."""

    parts = 2  # of a feed-forward half

    def __init__(self, graph: Graph, checkpoint: Checkpoint, cross_in_bytes: bool = False) -> None:
        super().__init__(graph, checkpoint, cross_in_bytes)
        self._rounded: dict[str, Rounded] = {}  # what several products read is rounded once

    def linear(self, x: str, name: str, modules: Sequence[str] = ()) -> str:
        """A product, and an addition."""
        modules = modules or (name,)
        q, scale = self._integers(modules)
        if x not in self._rounded:
            self._rounded[x] = self._round(x, q.shape[1])
        product = self._product(self._rounded[x], name, q, scale)
        bias = biases(self.checkpoint, modules)
        return product if bias is None else self._add_bias(product, name, bias)

    def projections(self, x: str, attention: str) -> Sequence[str]:
        """A product each."""
        return projections_apart(self, x, attention)

    def feed_forward(self, x: str, mlp: str) -> str:
        """In parts of the layer between. Each has scales of its own."""
        graph, rounded = self.graph, None
        (q_in, scale_in), (q_out, scale_out) = (self._integers([f"{mlp}.{layer}"]) for layer in (0, 2))
        bias_in, bias_out = (self.checkpoint.tensor(f"{mlp}.{layer}.bias").astype(np.float32) for layer in (0, 2))
        total, width = "", len(q_in) // self.parts
        for part in range(self.parts):
            here = slice(part * width, (part + 1) * width)
            first, second = f"{mlp}.0.part{part}", f"{mlp}.2.part{part}"
            rounded = rounded or self._round(x, q_in.shape[1])
            hidden = self._add_bias(self._product(rounded, first, q_in[here], scale_in[here]), first, bias_in[here])
            active = graph.node("Gelu", [hidden], f"{first}.gelu")
            product = self._product(self._round(active, width, after_gelu=True), second, q_out[:, here], scale_out)
            total = graph.node("Add", [total, product], f"{second}.sum") if total else product
        return self._add_bias(total, f"{mlp}.2", bias_out)

    def _integers(self, modules: Sequence[str]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        found = side_by_side(self.checkpoint, modules)
        assert found is not None, f"{modules} are not quantised"
        return found

    def _round(self, x: str, width: int, after_gelu: bool = False) -> Rounded:
        graph, zero = self.graph, LOW if after_gelu else MIDDLE
        largest = graph.node("ReduceMax", [x, graph.ints(-1)], f"{x}.largest", keepdims=1)
        if not after_gelu:
            least = graph.node("ReduceMin", [x, graph.ints(-1)], f"{x}.least", keepdims=1)
            largest = graph.node("Max", [largest, graph.node("Neg", [least], f"{x}.depth")], f"{x}.magnitude")
        step = graph.node("Mul", [largest, graph.scalar(1 / (TOP - zero), np.float32)], f"{x}.step")
        floor = graph.scalar(GELU_DEPTH / zero if after_gelu else TINY, np.float32)
        scale = graph.node("Max", [step, floor], f"{x}.scale")
        middle = graph.scalar(zero, np.uint8)
        zeros = graph.node("Expand", [middle, graph.node("Shape", [scale], f"{x}.rows")], f"{x}.zeros")
        integers = graph.node("QuantizeLinear", [x, scale, zeros], f"{x}.integers", axis=2, block_size=width)
        return Rounded(integers, scale, middle)

    def _product(self, x: Rounded, name: str, q: NDArray[np.int8], scale: NDArray[np.float32]) -> str:
        """x times integers [out, in] with a scale for each output channel."""
        graph = self.graph
        inputs = [x.integers, graph.weight(f"{name}.weight", q.T), graph.scalar(1.0, np.float32),
                  graph.weight(f"{name}.scale", scale), x.zero]
        product = graph.node("MatMulIntegerToFloat", inputs, f"{name}.product", CONTRIB)
        return graph.node("Mul", [product, x.scale], f"{name}.scaled")

    def _add_bias(self, x: str, name: str, bias: NDArray[np.float32]) -> str:
        """As a matrix: a vector would be fused with GELU into BiasGelu, which is slower than the two."""
        return self.graph.node("Add", [x, self.graph.weight(f"{name}.bias", bias[None, :])], f"{name}.output")
