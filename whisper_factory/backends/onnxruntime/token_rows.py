"""8-bit products of a step's rows, the decoder's in engines for several windows: as many_rows.py's, in fewer operators.

Eight windows in four beams are 32 rows. MatMulNBits takes 6.7 ms for all linear layers of such a step, these products
2.6 (tiny.en, one thread). But rows have to be rounded first, and an operator on so few numbers takes longer to be
called than to run: so there are five of them, and zero points are laid out once a step.
"""

from __future__ import annotations

import numpy as np

from whisper_factory.backends.onnx_graph.graph import Graph
from whisper_factory.backends.onnxruntime.many_rows import GELU_DEPTH, LOW, MIDDLE, TINY, TOP, ManyRowsDialect, Rounded
from whisper_factory.whisper.checkpoint import Checkpoint


class TokenRowsDialect(ManyRowsDialect):
    """The embedded backend's dialect for 8-bit products of tokens: x is [rows, new, in] throughout."""

    parts = 1

    def __init__(self, graph: Graph, checkpoint: Checkpoint, cross_in_bytes: bool = False) -> None:
        super().__init__(graph, checkpoint, cross_in_bytes)
        self._zeros: dict[int, str] = {}  # for all rows, uint8 [rows, new, 1]

    def _round(self, x: str, width: int, after_gelu: bool = False) -> Rounded:
        graph, zero = self.graph, LOW if after_gelu else MIDDLE
        sizes = x if after_gelu else graph.node("Abs", [x], f"{x}.sizes")
        largest = graph.node("ReduceMax", [sizes, graph.ints(-1)], f"{x}.largest", keepdims=1)
        step = graph.node("Mul", [largest, graph.scalar(1 / (TOP - zero), np.float32)], f"{x}.step")
        floor = graph.scalar(GELU_DEPTH / zero if after_gelu else TINY, np.float32)
        scale = graph.node("Max", [step, floor], f"{x}.scale")
        middle = graph.scalar(zero, np.uint8)
        if zero not in self._zeros:
            shape = graph.node("Shape", [scale], f"zeros.{zero}.shape")
            self._zeros[zero] = graph.node("Expand", [middle, shape], f"zeros.{zero}")
        integers = graph.node("QuantizeLinear", [x, scale, self._zeros[zero]], f"{x}.integers", axis=2,
                              block_size=width)
        return Rounded(integers, scale, middle)
