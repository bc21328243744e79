"""The decoder as ONNX for TensorRT: one step over new tokens, attending to a KV cache of fixed capacity.

After OpenAI's `TextDecoder`. What the graph is spelled for:
- nothing of a step depends on a number that the host would have to give at launch, so that one CUDA graph serves every
  step: positions and mask are tensors in device memory, and the cache is attended to whole, what is not used of it
  masked. It is at most 448 tokens;
- a step returns the new tokens' keys and values alone, [rows, heads, new, head size], which the runtime copies to their
  place: an operator that returned the cache would copy all of it;
- the beams of a window are folded into its sequence of queries (no query sees another), so that its cross-attention KV
  is stored once, however wide the beam.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from whisper_factory.backends.onnx_graph.blocks import cross_attention, mlp
from whisper_factory.backends.tensorrt.dialect import TensorRTDialect
from whisper_factory.progress import Advance

PADDED = 8


class _Step(NamedTuple):
    """Tensors that every block of one step needs."""

    mask: str  # [new, capacity + new]
    capacity: int
    shape: str  # of the tokens' states: rows, new, state
    folded: str  # of the queries with beams folded: windows, beams * new, state


def _self_attention(dialect: TensorRTDialect, x: str, block: str, layer: int, step: _Step) -> str:
    graph, sizes, name = dialect.graph, dialect.checkpoint.dimensions, f"{block}.attn"
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    qkv = dialect.linear(dialect.layer_norm(x, f"{block}.attn_ln"), f"{name}.qkv", parts)
    outs = graph.nodes("Split", [qkv], [f"{part}.output" for part in parts], axis=-1, num_outputs=3)
    q, k, v = (dialect.heads(out, part, sizes.n_text_head, scale=part.endswith("query"))
               for part, out in zip(parts, outs, strict=True))
    past_k, past_v = (graph.input(f"past_{part}_{layer}", dialect.dtype,
                                  ["rows", sizes.n_text_head, step.capacity, sizes.head_size]) for part in "kv")
    scores = graph.node("Concat", [dialect.scores(q, past_k, f"{name}.past_scores"),
                                   dialect.scores(q, k, f"{name}.new_scores")], f"{name}.scores", axis=-1)
    masked = graph.node("Add", [scores, step.mask], f"{name}.masked")
    shares = graph.node("Softmax", [masked], f"{name}.shares", axis=-1)
    last, border = graph.ints(-1), graph.ints(step.capacity)
    old = graph.node("Slice", [shares, graph.ints(0), border, last], f"{name}.past_shares")
    new = graph.node("Slice", [shares, border, graph.ints(step.capacity + sizes.n_text_ctx), last],
                     f"{name}.new_shares")
    mixed = graph.node("Add", [graph.node("MatMul", [old, past_v], f"{name}.past_mixed"),
                               graph.node("MatMul", [new, v], f"{name}.new_mixed")], f"{name}.by_head")
    for part, tensor in zip("kv", (k, v), strict=True):
        graph.output(graph.node("Identity", [tensor], f"new_{part}_{layer}"), dialect.dtype,
                     ["rows", sizes.n_text_head, "new", sizes.head_size])
    out = dialect.linear(dialect.merged(mixed, f"{name}.mixed"), f"{name}.out")
    return graph.node("Add", [x, out], f"{name}.residual")


def _cross_attention(dialect: TensorRTDialect, x: str, block: str, layer: int, step: _Step) -> str:
    sizes, name = dialect.checkpoint.dimensions, f"{block}.cross_attn"
    k, v = (dialect.graph.input(f"cross_{part}_{layer}", dialect.dtype,
                                ["windows", sizes.n_text_head, "length", sizes.head_size]) for part in "kv")

    def attend(queries: str, mixed: str) -> str:
        q = dialect.heads(queries, f"{name}.query", sizes.n_text_head, scale=True)
        return dialect.merged(dialect.attend_heads(q, k, v, name), mixed)

    return cross_attention(dialect, x, block, step.folded, step.shape, attend)


def _table(dialect: TensorRTDialect) -> str:
    """The token embedding, which is the output head too. Rows of zeros fill it up to a multiple of PADDED: else
    TensorRT for RTX holds a copy of it for the product (seen with 51865 rows)."""
    name = "decoder.token_embedding.weight"
    array = dialect.checkpoint.tensor(name)
    missing = -len(array) % PADDED
    return dialect.graph.weight(name, np.pad(array, ((0, missing), (0, 0))).astype(dialect.dtype, copy=False))


def write_decoder(dialect: TensorRTDialect, capacity: int, advance: Advance) -> None:
    """Write the decoder. Floats are of the activations' type where nothing else is said.

    Inputs: `tokens` int64 [rows, new]; `positions` int64 [new], of those tokens; `mask` [new, capacity + new], which is
    added to the scores of each token against the cache, then against the new tokens; for each layer i `cross_k_i`,
    `cross_v_i` [windows, heads, length, head size] and `past_k_i`, `past_v_i` [rows, heads, capacity, head size]. Rows
    of one window are adjacent, equally many for each.
    Outputs: `logits` float32 [rows, n_vocab] of the last token; `new_k_i`, `new_v_i` [rows, heads, new, head size].

    Args:
        capacity: tokens that the cache holds.
        advance: told of each layer.
    """
    graph, sizes = dialect.graph, dialect.checkpoint.dimensions
    tokens = graph.input("tokens", np.int64, ["rows", "new"])
    positions = graph.input("positions", np.int64, ["new"])
    table = _table(dialect)
    embedded = graph.node("Gather", [table, tokens], "decoder.tokens")
    step = _Step(
        mask=graph.input("mask", dialect.dtype, ["new", "reach"]), capacity=capacity,
        shape=graph.node("Shape", [embedded], "step.shape"),
        folded=graph.node("Concat", [graph.node("Shape", ["cross_k_0"], "step.windows", start=0, end=1),
                                     graph.ints(-1, sizes.n_text_state)], "step.folded", axis=0),
    )
    rows = graph.node("Gather", [dialect.weight("decoder.positional_embedding"), positions], "decoder.positional_rows")
    x = graph.node("Add", [embedded, rows], "decoder.embedded")
    for layer in range(sizes.n_text_layer):
        block = f"decoder.blocks.{layer}"
        x = _self_attention(dialect, x, block, layer, step)
        x = _cross_attention(dialect, x, block, layer, step)
        x = mlp(dialect, x, block)
        advance(1)
    x = graph.node("Gather", [x, graph.index(-1)], "decoder.last", axis=1)  # [rows, state]
    turned = graph.node("Transpose", [table], "decoder.head", perm=[1, 0])  # the same constant: it is there once
    product = graph.node("MatMul", [dialect.layer_norm(x, "decoder.ln"), turned], "decoder.padded_logits")
    wide = dialect.floats(product, "decoder.wide_logits")
    graph.node("Slice", [wide, graph.ints(0), graph.ints(sizes.n_vocab), graph.ints(1)], "logits")
    graph.output("logits", np.float32, ["rows", sizes.n_vocab])
