"""The decoder as ONNX for the GPU: one step over new tokens that also chooses the next, its KV cache updated in place.

After OpenAI's `TextDecoder`. What the graph is spelled for:
- all that changes from step to step lies in device memory, and a step leaves it as the next one wants it: the token it
  chose where it read its own, the length where it read the length before. So steps follow each other without the host,
  and one CUDA graph serves them all. The number of rows and the shapes are all that the host says. Each row has a
  length of its own, so that a new window can take the place of one that has ended;
- self-attention is GroupQueryAttention, whose past and present are one buffer;
- cross-attention's keys and values are [windows, length, state], as flash attention reads them; the beams of a window
  are folded into its sequence of queries (no query sees another), so they are stored once, however wide the beam;
- the token embedding stays in float16, for rows of it on the way in and for the product on the way out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from whisper_factory.backends.onnx_graph.blocks import cross_attention, mlp
from whisper_factory.backends.onnx_graph.graph import FLOAT32
from whisper_factory.backends.onnxruntime.attention import self_attention
from whisper_factory.backends.onnxruntime_cuda.dialect import CudaDialect
from whisper_factory.progress import Advance


class _Step(NamedTuple):
    """Tensors that every block of one step needs."""

    shape: str  # of the tokens' states: rows, new, state
    last: str  # int32 [rows]: index of the last token, the way GroupQueryAttention counts
    reach: str  # int32 [1]
    folded: str  # shape of the same states with beams folded: windows, beams * new, state


def _embed(dialect: CudaDialect, tokens: str, length: str, new: str) -> str:
    """Tokens' embeddings with their positions added, [rows, new, state]; positions are counted from the new lengths, as
    nothing else may read the ones before, which are overwritten."""
    graph = dialect.graph
    counted = graph.weight("decoder.counted", np.arange(dialect.checkpoint.dimensions.n_text_ctx, dtype=np.int32))
    count = graph.node("Shape", [tokens], "step.count", start=1, end=2)
    offsets = graph.node("Slice", [counted, graph.ints(0), count, graph.ints(0)], "step.offsets")
    first = graph.node("Sub", [length, new], "step.first")
    positions = graph.node("Add", [offsets, graph.node("Unsqueeze", [first, graph.ints(1)], "step.firsts")],
                           "step.positions")
    rows = graph.node("Gather", [dialect.weight("decoder.positional_embedding"), positions], "decoder.positional_rows")
    embedded = graph.node("Gather", [dialect.weight("decoder.token_embedding.weight"), tokens], "decoder.tokens")
    return graph.node("Add", [embedded, rows], "decoder.embedded")


def _shapes(dialect: CudaDialect, embedded: str, length: str, reach: str) -> _Step:
    graph, state = dialect.graph, dialect.checkpoint.dimensions.n_text_state
    windows = graph.node("Shape", ["cross_k_0"], "step.windows", start=0, end=1)
    return _Step(
        shape=graph.node("Shape", [embedded], "step.shape"),
        last=graph.node("Sub", [length, graph.weight("decoder.one", np.array([1], np.int32))], "step.last"),
        reach=reach,
        folded=graph.node("Concat", [windows, graph.ints(-1, state)], "step.folded", axis=0),
    )


def _cross_attention(dialect: CudaDialect, x: str, block: str, layer: int, step: _Step) -> str:
    sizes = dialect.checkpoint.dimensions
    k, v = (dialect.graph.input(f"cross_{part}_{layer}", dialect.dtype, ["windows", "length", sizes.n_text_state])
            for part in "kv")
    return cross_attention(dialect, x, block, step.folded, step.shape,
                           lambda queries, name: dialect.attend(queries, k, v, sizes.n_text_head, name))


def _choose(dialect: CudaDialect, states: str, forbidden: str) -> None:
    """The most probable token of each row that is not forbidden, and its log-probability among those."""
    graph, sizes = dialect.graph, dialect.checkpoint.dimensions
    product = graph.node("Gemm", [states, "decoder.token_embedding.weight"], "decoder.head", transB=1)
    logits = graph.node("Cast", [product], "logits", to=FLOAT32)
    shares = graph.node("LogSoftmax", [graph.node("Add", [logits, forbidden], "choice.logits")], "choice.shares",
                        axis=-1)
    best = graph.node("ArgMax", [shares], "next", axis=-1, keepdims=1)
    graph.node("GatherElements", [shares, best], "logprob", axis=1)
    graph.output("logits", np.float32, ["rows", sizes.n_vocab])
    graph.output("next", np.int64, ["rows", 1])
    graph.output("logprob", np.float32, ["rows", 1])


def write_decoder(dialect: CudaDialect, advance: Advance) -> None:
    """Write the decoder.

    Inputs: `tokens` int64 [rows, new]; `past` int32 [rows], tokens before these, and `new` int32 [1]; `reach` int32
    [1], on the host: `new` for a prompt, else the capacity; `forbidden` float32 [n_vocab], 0 or minus infinity; for
    each layer i, in float16, `cross_k_i`, `cross_v_i` [windows, length, state] and `past_k_i`, `past_v_i` [rows, heads,
    capacity, head size]. Rows of one window are adjacent, equally many for each.
    Outputs: `next` int64 [rows, 1], which may lie where `tokens` do; `logprob` float32 [rows, 1]; `length` int32
    [rows], which may lie where `past` does; `logits` float32 [rows, n_vocab] of the last token; `present_k_i`,
    `present_v_i`, to be bound to the memory of the past.

    Args:
        advance: told of each layer.
    """
    graph, sizes = dialect.graph, dialect.checkpoint.dimensions
    tokens = graph.input("tokens", np.int64, ["rows", "new"])
    past = graph.input("past", np.int32, ["rows"])
    new, reach = (graph.input(name, np.int32, [1]) for name in ("new", "reach"))
    forbidden = graph.input("forbidden", np.float32, [sizes.n_vocab])
    length = graph.node("Add", [past, new], "length")
    graph.output(length, np.int32, ["rows"])
    x = _embed(dialect, tokens, length, new)
    step = _shapes(dialect, x, length, reach)
    for layer in range(sizes.n_text_layer):
        block = f"decoder.blocks.{layer}"
        x = self_attention(dialect, x, block, layer, step.last, step.reach)
        x = _cross_attention(dialect, x, block, layer, step)
        x = mlp(dialect, x, block)
        advance(1)
    normal = dialect.layer_norm(x, "decoder.ln")
    _choose(dialect, graph.node("Gather", [normal, graph.index(-1)], "decoder.last", axis=1), forbidden)
