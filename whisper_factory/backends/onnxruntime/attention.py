"""Self-attention of a decoder block, as ONNX Runtime has it on the CPU and on a GPU: past and present in one buffer."""

from __future__ import annotations

from whisper_factory.backends.onnx_graph.blocks import Dialect
from whisper_factory.backends.onnx_graph.graph import CONTRIB, Shape


def self_attention(dialect: Dialect, x: str, block: str, layer: int, last: str, reach: str) -> str:
    """GroupQueryAttention, with as many heads for keys and values as for queries, and its residual.

    Declares `past_k_i`, `past_v_i` and `present_k_i`, `present_v_i` [rows, heads, capacity, head size].

    Args:
        last: int32 [rows], the index of the last token.
        reach: int32 [1], how many tokens are looked at.
    """
    graph, sizes = dialect.graph, dialect.checkpoint.dimensions
    normal = dialect.layer_norm(x, f"{block}.attn_ln")
    qkv = dialect.linear(normal, f"{block}.attn.qkv", [f"{block}.attn.{part}" for part in ("query", "key", "value")])
    buffer: Shape = ["rows", sizes.n_text_head, "capacity", sizes.head_size]
    past = [graph.input(f"past_{part}_{layer}", dialect.dtype, buffer) for part in "kv"]
    present = [f"present_{part}_{layer}" for part in "kv"]
    graph.nodes("GroupQueryAttention", [qkv, "", "", *past, last, reach], [f"{block}.attn.mixed", *present], CONTRIB,
                num_heads=sizes.n_text_head, kv_num_heads=sizes.n_text_head)
    for name in present:
        graph.output(name, dialect.dtype, buffer)
    return dialect.residual(x, dialect.linear(f"{block}.attn.mixed", f"{block}.attn.out"), f"{block}.attn.residual")
