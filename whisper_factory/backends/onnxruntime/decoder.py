"""The decoder as ONNX: one step over new tokens' embeddings, its self-attention KV cache updated in place.

After OpenAI's `TextDecoder`. How attention is spelled follows from what ONNX Runtime does on the CPU:
- self-attention is GroupQueryAttention (with as many KV heads as heads): where its past and present are one
  buffer, only the new tokens' rows are written, while MultiHeadAttention copies the whole past every token;
- cross-attention is MultiHeadAttention with keys and values [windows, heads, length, head size] as they are.
  It wants them once per query row, so the beams of a window are folded into its sequence of queries
  (no query sees another): the KV of a window is stored once, however wide the beam.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from whisper_factory.backends.onnx_graph.blocks import cross_attention, mlp
from whisper_factory.backends.onnx_graph.graph import INT32, WeightFile
from whisper_factory.backends.onnxruntime import byte_head, byte_kv, head
from whisper_factory.backends.onnxruntime.attention import self_attention
from whisper_factory.backends.onnxruntime.pack import OnnxRuntimeDialect
from whisper_factory.progress import Advance


class _Step(NamedTuple):
    """Tensors that every block of one step needs."""

    shape: str  # of the tokens' states: rows, new, state
    last: str  # int32 [rows]: index of the last token, the way GroupQueryAttention counts
    total: str  # int32 [1]: tokens after this step, of the longest row
    folded: str  # shape of the same states with beams folded: windows, beams * new, state


def _embed(dialect: OnnxRuntimeDialect, embedded: str, past: str) -> tuple[str, _Step]:
    """Tokens' embeddings with their positions added, [rows, new, state], and what depends on the lengths alone."""
    graph, apart = dialect.graph, dialect.cross_in_bytes  # whether rows have lengths of their own
    rows = graph.node("Shape", [embedded], "step.rows", start=0, end=1)
    new = graph.node("Shape", [embedded], "step.new", start=1, end=2)
    total = graph.node("Add", [past, new], "step.total")
    last = graph.node("Cast", [graph.node("Sub", [total, graph.ints(1)], "step.last")], "step.last32", to=INT32)
    longest = graph.node("ReduceMax", [total, graph.ints(0)], "step.longest", keepdims=1) if apart else total
    windows = graph.node("Shape", ["cross_k_0"], "step.windows", start=0, end=1)
    state = graph.ints(dialect.checkpoint.dimensions.n_text_state)
    step = _Step(
        shape=graph.node("Shape", [embedded], "step.shape"),
        last=last if apart else graph.node("Expand", [last, rows], "step.last_of_rows"),
        total=graph.node("Cast", [longest], "step.total32", to=INT32),
        folded=graph.node("Concat", [windows, graph.ints(-1), state], "step.folded", axis=0),
    )
    table, name = dialect.weight("decoder.positional_embedding"), "decoder.positional_rows"
    if apart:
        steps = graph.node("Range", [graph.index(0), graph.node("Squeeze", [new], "step.count"), graph.index(1)],
                           "step.steps")
        own = graph.node("Add", [graph.node("Unsqueeze", [past, graph.ints(1)], "step.begins"), steps], "step.places")
        positions = graph.node("Gather", [table, own], name)
    else:
        positions = graph.node("Slice", [table, past, total, graph.ints(0)], name)
    return graph.node("Add", [embedded, positions], "decoder.embedded"), step


def _cross_attention(dialect: OnnxRuntimeDialect, x: str, block: str, layer: int, step: _Step) -> str:
    sizes = dialect.checkpoint.dimensions

    def attend(queries: str, name: str) -> str:
        if dialect.cross_in_bytes:
            return byte_kv.attend(dialect.graph, queries, layer, name, sizes)
        return dialect.attend(queries, f"cross_k_{layer}", f"cross_v_{layer}", sizes.n_text_head, name)

    return cross_attention(dialect, x, block, step.folded, step.shape, attend)


def write_decoder(dialect: OnnxRuntimeDialect, table: WeightFile, advance: Advance) -> None:
    """Write the decoder.

    Inputs: `embedded` float32 [rows, new, state], of tokens (embedding.py); `past_length` int64 [1], or with
    cross-attention in bytes [rows]; `bias` float32 [n_vocab], zeros and minus infinity, added to the logits; `count`
    int64 [1], of tokens that are ranked; for each layer i `cross_k_i`, `cross_v_i` float32 [windows, heads, length,
    head size] and `past_k_i`, `past_v_i` float32 [rows, heads, capacity, head size]. Rows of one window are adjacent,
    equally many for each. Of bytes, cross-attention's are as byte_kv.py has them (`inputs`).
    Outputs: `logits` float32 [rows, n_vocab] of the last token, and the best of them (`write_ranking`); `present_k_i`,
    `present_v_i`, to be bound to the memory of the past.

    Args:
        table: takes the token embedding.
        advance: told of each layer.
    """
    graph, sizes = dialect.graph, dialect.checkpoint.dimensions
    embedded = graph.input("embedded", np.float32, ["rows", "new", sizes.n_text_state])
    past = graph.input("past_length", np.int64, ["rows" if dialect.cross_in_bytes else 1])
    bias = graph.input("bias", np.float32, [sizes.n_vocab])
    count = graph.input("count", np.int64, [1])
    if dialect.cross_in_bytes:
        byte_kv.inputs(graph, sizes)
        embedded = byte_head.write_embedded(dialect, embedded)
    else:
        for layer, part in product(range(sizes.n_text_layer), "kv"):
            graph.input(f"cross_{part}_{layer}", np.float32, ["windows", sizes.n_text_head, "length", sizes.head_size])
    x, step = _embed(dialect, embedded, past)
    for layer in range(sizes.n_text_layer):
        block = f"decoder.blocks.{layer}"
        x = self_attention(dialect, x, block, layer, step.last, step.total)
        x = _cross_attention(dialect, x, block, layer, step)
        x = mlp(dialect, x, block)
        advance(1)
    x = graph.node("Gather", [x, graph.index(-1)], "decoder.last", axis=1)  # [rows, state]
    if dialect.cross_in_bytes:
        byte_head.write_logits(dialect, table, x, bias)
        byte_head.write_ranking(graph, count, sizes.n_vocab)
    else:
        head.write_logits(graph, dialect.checkpoint, table, dialect.layer_norm(x, "decoder.ln"), bias)
        head.write_ranking(graph, count)
    graph.output("logits", np.float32, ["rows", sizes.n_vocab])
    graph.output("ranked_tokens", np.int64, ["rows", "count"])
    graph.output("ranked_logprobs", np.float32, ["rows", "count"])
