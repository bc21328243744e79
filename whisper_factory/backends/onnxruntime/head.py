"""The vocabulary's matrix, used twice: token -> embedding on the way in, state -> logits on the way out.

It is stored once. In float engines it is one constant; the CPU's product needs it in float32.

In int8 and int4 engines it is 8-bit integers, which GatherBlockQuantized reads row by row and MatMulNBits
multiplies by. The checkpoint leaves the embedding in float16, as TensorRT-LLM does, so it is quantised here, by
the same formula but with a scale for each block of a row: it costs this operator nothing, and one for the whole
row changed more tokens. Measured over 80 clips of human speech in 7.5 s windows, tiny.en int8, tokens that differ
from the float32 engine's:

    head                          edits of 782 tokens    engine    head's product, one token, 2 cores
    float16 table, float32 head     1  (0.13 %)          59.9 MB   2.0 ms (memory bandwidth, 80 MB)
    8 bits, a scale a block         3  (0.38 %)          40.6 MB   0.3 ms
    8 bits, a scale a row          14  (1.79 %)          40.6 MB   0.3 ms
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from whisper_factory.backends.onnxruntime.graph import CONTRIB, FLOAT32, Graph
from whisper_factory.backends.onnxruntime.limits import block_size
from whisper_factory.backends.onnxruntime.pack import ACCURACY_LEVEL, pack_integers
from whisper_factory.quantization.weight_only import quantize

if TYPE_CHECKING:
    from whisper_factory.whisper.checkpoint import Checkpoint

NAME = "decoder.token_embedding"
BITS = 8


class FloatVocabulary:
    """The tied embedding of a float32 or float16 decoder."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint) -> None:
        self._graph = graph
        self._table = graph.weight(f"{NAME}.weight", checkpoint.tensor(f"{NAME}.weight"))
        self._is_float32 = checkpoint.precision.dtype == "float32"

    def embed(self, tokens: str) -> str:
        """tokens [rows, new] -> embeddings float32 [rows, new, state]."""
        rows = self._graph.node("Gather", [self._table, tokens], f"{NAME}.rows")  # before the cast: few rows
        return rows if self._is_float32 else self._graph.node("Cast", [rows], f"{NAME}.output", to=FLOAT32)

    def logits(self, states: str) -> str:
        """states [rows, state] -> `logits` float32 [rows, n_vocab]."""
        table = self._table
        if not self._is_float32:
            table = self._graph.node("Cast", [table], f"{NAME}.float32", to=FLOAT32)
        return self._graph.node("Gemm", [states, table], "logits", transB=1)


class IntegerVocabulary:
    """The tied embedding of an int8 or int4 decoder: 8 bits in both."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint) -> None:
        self._graph = graph
        table = checkpoint.tensor(f"{NAME}.weight")
        self._outs, self._ins = table.shape
        self._block = block_size(self._ins)
        q, scale = quantize(table.reshape(-1, self._block), BITS)
        self._weight = graph.weight(f"{NAME}.weight", pack_integers(q, BITS, self._block).reshape(table.shape))
        self._scale = graph.weight(f"{NAME}.scale", scale.reshape(self._outs, -1))

    def embed(self, tokens: str) -> str:
        """tokens [rows, new] -> embeddings float32 [rows, new, state]."""
        return self._graph.node("GatherBlockQuantized", [self._weight, tokens, self._scale], f"{NAME}.output", CONTRIB,
                                bits=BITS, block_size=self._block, gather_axis=0, quantize_axis=1)

    def logits(self, states: str) -> str:
        """states [rows, state] -> `logits` float32 [rows, n_vocab]. The same bytes, in MatMulNBits' shapes."""
        blocks = self._ins // self._block
        weight = self._graph.external("decoder.head.weight", np.dtype(np.uint8), (self._outs, blocks, self._block),
                                      self._graph.region(self._weight))
        scale = self._graph.external("decoder.head.scale", np.dtype(np.float32), (self._outs * blocks,),
                                     self._graph.region(self._scale))
        return self._graph.node("MatMulNBits", [states, weight, scale], "logits", CONTRIB, K=self._ins, N=self._outs,
                                bits=BITS, block_size=self._block, accuracy_level=ACCURACY_LEVEL)


def vocabulary(graph: Graph, checkpoint: Checkpoint) -> FloatVocabulary | IntegerVocabulary:
    """Put the embedding into a decoder graph, in the form its precision calls for."""
    return (IntegerVocabulary if checkpoint.precision.bits else FloatVocabulary)(graph, checkpoint)
