"""The vocabulary's matrix, used twice: token -> embedding on the way in, state -> logits on the way out.

It is stored once, in a file of its own: the graph multiplies by it, and the runtime reads rows of it (embedding.py).

In float engines the CPU's product needs it in float32. In int8 and int4 engines it is 8-bit integers, which
MatMulNBits multiplies by. The checkpoint leaves the embedding in float16, as TensorRT-LLM does, so it is quantised
here, by the same formula but with a scale for each block of a row: it costs this operator nothing, and one for the
whole row changed more tokens. Measured over 80 clips of human speech in 7.5 s windows, tiny.en int8, tokens that
differ from the float32 engine's:

    head                          edits of 782 tokens    engine    head's product, one token, 2 cores
    float16 table, float32 head     1  (0.13 %)          59.9 MB   2.0 ms (memory bandwidth, 80 MB)
    8 bits, a scale a block         3  (0.38 %)          40.6 MB   0.3 ms
    8 bits, a scale a row          14  (1.79 %)          40.6 MB   0.3 ms
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whisper_factory.backends.onnx_graph.embedding import BITS, NAME, quantized
from whisper_factory.backends.onnx_graph.graph import CONTRIB, FLOAT32, Graph, WeightFile
from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.backends.onnxruntime.pack import ACCURACY_LEVEL, pack_integers

if TYPE_CHECKING:
    from whisper_factory.whisper.checkpoint import Checkpoint


def write_logits(graph: Graph, checkpoint: Checkpoint, file: WeightFile, states: str, bias: str) -> None:
    """Write the table, and the product: states [rows, state] -> `logits` float32 [rows, n_vocab], with a bias
    [n_vocab] added."""
    (_integer_logits if checkpoint.precision.bits else _float_logits)(graph, checkpoint, file, states, bias)


def write_ranking(graph: Graph, count: str) -> None:
    """Of `logits`, the `count` (int64 [1]) best of each row, best first: `ranked_tokens` int64 [rows, count], and
    `ranked_logprobs` float32. The lower of two equal tokens comes first."""
    logprobs = graph.node("LogSoftmax", ["logits"], "logprobs", axis=-1)
    graph.nodes("TopK", [logprobs, count], ["ranked_logprobs", "ranked_tokens"], axis=-1)


def _float_logits(graph: Graph, checkpoint: Checkpoint, file: WeightFile, states: str, bias: str) -> None:
    array = checkpoint.tensor(f"{NAME}.weight")
    table = graph.external(f"{NAME}.weight", array.dtype, array.shape, file.append(array))
    if checkpoint.precision.dtype != "float32":
        table = graph.node("Cast", [table], f"{NAME}.float32", to=FLOAT32)
    graph.node("Gemm", [states, table, bias], "logits", transB=1)


def _integer_logits(graph: Graph, checkpoint: Checkpoint, file: WeightFile, states: str, bias: str) -> None:
    q, scale = quantized(checkpoint)
    outs, ins = q.shape
    block = block_size(ins)
    packed = pack_integers(q, BITS, block)
    weight = graph.external(f"{NAME}.weight", packed.dtype, packed.shape, file.append(packed))
    scales = graph.external(f"{NAME}.scale", scale.dtype, (scale.size,), file.append(scale.ravel()))
    graph.node("MatMulNBits", [states, weight, scales, "", "", bias], "logits", CONTRIB, K=ins, N=outs, bits=BITS,
               block_size=block, accuracy_level=ACCURACY_LEVEL)
