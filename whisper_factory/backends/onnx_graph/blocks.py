"""What every block of the model is made of, however a backend spells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from whisper_factory.backends.onnx_graph.graph import Graph
from whisper_factory.errors import UserError

if TYPE_CHECKING:
    from whisper_factory.engine_spec import EngineSpec
    from whisper_factory.whisper.checkpoint import Checkpoint


def check_checkpoint(checkpoint: Checkpoint, spec: EngineSpec) -> None:
    """Raise UserError if a checkpoint is not what an engine is declared to be made of."""
    for what, found, wanted in (("dimensions", checkpoint.dimensions, spec.dimensions),
                                ("precision", checkpoint.precision, spec.precision)):
        if found != wanted:
            raise UserError(f"the checkpoint's {what} are {found}, the engine's {wanted}; convert again")


class Dialect(Protocol):
    """How one runtime wants the parts spelled. Tensors are given and returned by their names."""

    graph: Graph
    checkpoint: Checkpoint
    dtype: type[np.generic]  # of activations

    def weight(self, name: str) -> str:
        """A tensor of the checkpoint that is not quantised, as activations are multiplied by it."""

    def activations(self, x: str, name: str) -> str:
        """x, float32, in the type of activations."""

    def stem(self, mel: str) -> str:
        """The encoder's two convolutions, each with GELU: mel, float32 [batch, n_mels, frames] -> [batch, frames / 2,
        state]."""

    def linear(self, x: str, name: str, modules: Sequence[str] = ()) -> str:
        """Apply linear layers of the checkpoint to x [..., in]: their outputs side by side, [..., sum of outs].

        Args:
            name: of the tensors this makes, and of the only layer where `modules` is empty.
            modules: layers with one input, made into one product (query, key, value).
        """

    def projections(self, x: str, attention: str) -> Sequence[str]:
        """Queries, keys and values of x, [batch, length, state] each."""

    def feed_forward(self, x: str, mlp: str) -> str:
        """The two linear layers with GELU between them."""

    def layer_norm(self, x: str, name: str) -> str:
        """Layer normalisation of the last axis, epsilon 1e-5 as in OpenAI's model."""

    def attend(self, q: str, k: str, v: str, heads: int, name: str) -> str:
        """Attention without a mask: [batch, length, state] each, and so is what comes out."""

    def residual(self, x: str, out: str, name: str) -> str:
        """x + out, where `out` is what `linear` made of an attention, or `feed_forward`; a layer_norm reads it next."""

    def cross_kv(self, states: str, part: str, layer: int, output: str) -> None:
        """The encoder's output `output`: the keys or values (`part`) of a layer's cross-attention."""


def residual(dialect: Dialect, x: str, out: str, name: str) -> str:
    """See `Dialect.residual`: one operator."""
    return dialect.graph.node("Add", [x, out], name)


def stem(dialect: Dialect, mel: str) -> str:
    """See `Dialect.stem`: two operators."""
    x = _convolution(dialect, dialect.activations(mel, "encoder.mel"), "encoder.conv1", 1)
    x = _convolution(dialect, x, "encoder.conv2", 2)
    return dialect.graph.node("Transpose", [x], "encoder.embedded", perm=[0, 2, 1])


def _convolution(dialect: Dialect, x: str, name: str, stride: int) -> str:
    graph = dialect.graph
    weight, bias = (dialect.weight(f"{name}.{part}") for part in ("weight", "bias"))
    y = graph.node("Conv", [x, weight, bias], f"{name}.output", kernel_shape=[3], pads=[1, 1], strides=[stride])
    return graph.node("Gelu", [y], f"{name}.gelu")


def cross_kv(dialect: Dialect, states: str, part: str, layer: int, output: str) -> None:
    """See `Dialect.cross_kv`: split by heads, [batch, heads, length, head size]."""
    graph, sizes = dialect.graph, dialect.checkpoint.dimensions
    name = f"decoder.blocks.{layer}.cross_attn.{part}"
    flat = dialect.linear(states, name)
    split = graph.node("Reshape", [flat, graph.ints(0, 0, sizes.n_text_head, sizes.head_size)], f"{name}.heads")
    graph.node("Transpose", [split], output, perm=[0, 2, 1, 3])
    graph.output(output, dialect.dtype, ["batch", sizes.n_text_head, "length", sizes.head_size])


def projections(dialect: Dialect, x: str, attention: str) -> Sequence[str]:
    """See `Dialect.projections`: one product, split."""
    parts = [f"{attention}.{part}" for part in ("query", "key", "value")]
    qkv = dialect.linear(x, f"{attention}.qkv", parts)
    return dialect.graph.nodes("Split", [qkv], [f"{part}.output" for part in parts], axis=-1, num_outputs=3)


def projections_apart(dialect: Dialect, x: str, attention: str) -> Sequence[str]:
    """See `Dialect.projections`: a product each."""
    return [dialect.linear(x, f"{attention}.{part}") for part in ("query", "key", "value")]


def feed_forward(dialect: Dialect, x: str, mlp: str) -> str:
    """See `Dialect.feed_forward`: one product after the other."""
    hidden = dialect.linear(x, f"{mlp}.0")
    return dialect.linear(dialect.graph.node("Gelu", [hidden], f"{mlp}.gelu"), f"{mlp}.2")


def cross_attention(dialect: Dialect, x: str, block: str, folded: str, shape: str, attend: Callable[[str, str], str]
                    ) -> str:
    """A decoder block's cross-attention with its residual, each window's beams folded into its sequence of queries.

    Args:
        folded: the shape of queries so folded, [windows, beams * new, state].
        shape: that of x, [rows, new, state].
        attend: (queries, name) -> what attention makes of them, of the same shape.
    """
    graph, name = dialect.graph, f"{block}.cross_attn"
    query = dialect.linear(dialect.layer_norm(x, f"{block}.cross_attn_ln"), f"{name}.query")
    queries = graph.node("Reshape", [query, folded], f"{name}.folded")
    unfolded = graph.node("Reshape", [attend(queries, f"{name}.mixed"), shape], f"{name}.unfolded")
    return dialect.residual(x, dialect.linear(unfolded, f"{name}.out"), f"{name}.residual")


def mlp(dialect: Dialect, x: str, block: str) -> str:
    """A block's feed-forward half with its residual."""
    out = dialect.feed_forward(dialect.layer_norm(x, f"{block}.mlp_ln"), f"{block}.mlp")
    return dialect.residual(x, out, f"{block}.mlp.residual")
