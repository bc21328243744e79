"""The encoder as ONNX: log-mel windows -> states, the end anchor, and the decoder's cross-attention KV.

After OpenAI's `AudioEncoder`; the cross-attention's keys and values belong to the decoder's blocks but depend on
the encoder alone, so they are computed here, once a window.
"""

from __future__ import annotations

import numpy as np

from whisper_factory.backends.onnx_graph.blocks import Dialect, mlp
from whisper_factory.backends.onnx_graph.graph import INT64, Graph, Region
from whisper_factory.progress import Advance
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

STATES = "encoder_states"


def _stem(dialect: Dialect, mel: str) -> str:
    """mel [batch, n_mels, frames] -> [batch, frames / 2, state], positions added."""
    graph = dialect.graph
    x = dialect.stem(mel)
    count = graph.node("Shape", [x], "encoder.positions", start=1, end=2)
    table = dialect.weight("encoder.positional_embedding")
    rows = graph.node("Slice", [table, graph.ints(0), count, graph.ints(0)], "encoder.positional_rows")
    return graph.node("Add", [x, rows], "encoder.positioned")


def _block(dialect: Dialect, x: str, block: str) -> str:
    heads = dialect.checkpoint.dimensions.n_audio_head
    normal = dialect.layer_norm(x, f"{block}.attn_ln")
    q, k, v = dialect.projections(normal, f"{block}.attn")
    mixed = dialect.attend(q, k, v, heads, f"{block}.attn.mixed")
    x = dialect.residual(x, dialect.linear(mixed, f"{block}.attn.out"), f"{block}.attn.residual")
    return mlp(dialect, x, block)


def _append_anchor(graph: Graph, mel: str, states: str, anchor: str, rows: int) -> str:
    """Append the anchor's rows to every window that is shorter than the whole 3000 frames, none to one that is
    not: the slice then has no rows."""
    frames = graph.node("Shape", [mel], "anchor.frames", start=2)
    short = graph.node("Less", [frames, graph.ints(WINDOW_FRAMES)], "anchor.is_short")
    flag = graph.node("Cast", [short], "anchor.flag", to=INT64)
    count = graph.node("Mul", [flag, graph.ints(rows)], "anchor.count")
    used = graph.node("Slice", [anchor, graph.ints(0), count, graph.ints(0)], "anchor.rows")
    batch = graph.node("Shape", [mel], "anchor.batch", start=0, end=1)
    shape = graph.node("Concat", [batch, count, graph.node("Shape", [states], "anchor.state", start=2)],
                       "anchor.shape", axis=0)
    repeated = graph.node("Expand", [used, shape], "anchor.batched")
    return graph.node("Concat", [states, repeated], STATES, axis=1)


def _cross_kv(dialect: Dialect, states: str, layer: int) -> None:
    """Outputs cross_k_i and cross_v_i."""
    for part, output in (("key", f"cross_k_{layer}"), ("value", f"cross_v_{layer}")):
        dialect.cross_kv(states, part, layer, output)


def write_encoder(dialect: Dialect, end_anchor: int, anchor: Region, advance: Advance) -> None:
    """Write the encoder.

    Input: `mel` float32 [batch, n_mels, frames], frames even.
    Outputs, of the activations' type: `encoder_states` [batch, length, state]; for each decoder layer i `cross_k_i` and
    `cross_v_i` [batch, heads, length, head size], or as the dialect has them. `length` is frames / 2, plus `end_anchor`
    rows if the window is shorter than 3000 frames.

    Args:
        end_anchor: rows of the anchor; 0 leaves it out.
        anchor: where its rows [end_anchor, state] lie, of the activations' type.
        advance: told of each layer.
    """
    graph, sizes = dialect.graph, dialect.checkpoint.dimensions
    mel = graph.input("mel", np.float32, ["batch", sizes.n_mels, "frames"])
    x = _stem(dialect, mel)
    for layer in range(sizes.n_audio_layer):
        x = _block(dialect, x, f"encoder.blocks.{layer}")
        advance(1)
    x = dialect.layer_norm(x, "encoder.ln_post")
    if end_anchor:
        shape = (end_anchor, sizes.n_audio_state)
        table = graph.external("end_anchor", np.dtype(dialect.dtype), shape, anchor)
        states = _append_anchor(graph, mel, x, table, end_anchor)
    else:
        states = graph.node("Identity", [x], STATES)
    graph.output(states, dialect.dtype, ["batch", "length", sizes.n_audio_state])
    for layer in range(sizes.n_text_layer):
        _cross_kv(dialect, states, layer)
