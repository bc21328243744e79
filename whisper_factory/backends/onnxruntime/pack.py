"""Weights into the shapes that ONNX Runtime's operators read, and the nodes that apply them.

Quantised linears are MatMulNBits at accuracy level 4: the operator also rounds the activations, to 8 bits with a
scale for each block, and multiplies integers. Levels 0 and 1 keep activations in float32. Measured with tiny.en on
two cores (AVX-512 with VNNI; ONNX Runtime 1.23.2 and 1.32 alike):

    one token, 384 -> 1536, 8 bits: level 4 0.017 ms, level 0 or 1 0.34 ms (it dequantises the matrix each time;
        the 51864-row head 42 ms against 0.3 ms); 4 bits: 0.015 ms against 0.043 ms
    the encoder's 375 rows, 384 -> 1536: 1.7 ms against 6.4 ms (float32's MatMul: 1.9 ms)
    clips of 80 (human speech, 7.5 s windows) that decode to the float32 engine's very tokens, level 4 / level 1:
        tiny.en int8 78 / 78, int4 47 / 46; base int8 75 / 77, int4 52 / 49

So level 4 is what makes 8 bits usable for decoding, at no cost in tokens that 80 clips would show; what 4 bits cost,
they cost at either level. By ONNX Runtime's release notes it has 8-bit kernels on x86-64 from 1.22 and on aarch64
from 1.23 (only x86-64 was run). The rounding differs a little between processors and releases, so the same int8
engine may choose another of two near-equal tokens elsewhere. Blocks of 128 are the fastest, and their scales the
smallest (blocks of 32 agreed on as many clips); as the checkpoint has one scale a row, every block of a row gets
the same. int4_g32 and int4_g128 have their groups for blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.blocks import (
    cross_kv,
    feed_forward,
    projections,
    projections_apart,
    residual,
    stem,
)
from whisper_factory.backends.onnx_graph.graph import CONTRIB, FLOAT32, Graph
from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.backends.onnxruntime import byte_kv

if TYPE_CHECKING:
    from whisper_factory.whisper.checkpoint import Checkpoint

ACCURACY_LEVEL = 4


def pack_integers(q: NDArray[np.int8], bits: int, block: int) -> NDArray[np.uint8]:
    """Symmetric integers [out, in] as MatMulNBits reads them: uint8 [out, in / block, block * bits / 8].

    Unsigned around the operator's default zero point (128, or 8); of two 4-bit values in a byte, the earlier
    is the low nibble.
    """
    unsigned = (q.view(np.uint8) + (1 << (bits - 1))).astype(np.uint8)  # modulo 256
    if bits == 4:
        unsigned = np.bitwise_or(unsigned[:, 0::2], unsigned[:, 1::2] << 4)
    return unsigned.reshape(q.shape[0], q.shape[1] // block, block * bits // 8)


def repeat_scales(scale: NDArray[np.float32], blocks: int) -> NDArray[np.float32]:
    """One scale an output channel -> one a block, [out * blocks]: every block of a channel has the same. Scales of
    groups, [out, blocks], are as they are."""
    return scale.reshape(-1) if scale.ndim == 2 else np.repeat(scale, blocks)


def float_weight(graph: Graph, checkpoint: Checkpoint, name: str, array: NDArray[Any] | None = None) -> str:
    """A float constant, the checkpoint's tensor of this name if no other is given.

    The CPU computes in float32. In a float16 engine matrices are stored as they are, and widened when a session loads,
    which leaves a copy in memory. In int8 and int4 engines few are floats (convolutions, positions): they are stored
    as float32, and mapped; so are all vectors.
    """
    array = checkpoint.tensor(name) if array is None else array
    if array.ndim == 1 or checkpoint.precision.bits:
        return graph.weight(name, array.astype(np.float32))
    stored = graph.weight(name, array)
    return stored if array.dtype == np.float32 else graph.node("Cast", [stored], f"{name}.float32", to=FLOAT32)


def side_by_side(checkpoint: Checkpoint, modules: Sequence[str]) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Integers [sum of outs, in] and scales [sum of outs] (or [sum of outs, groups]) of layers with one input; None if
    they are floats."""
    found = [part for module in modules if (part := checkpoint.quantized(f"{module}.weight")) is not None]
    if not found:
        return None
    return np.concatenate([q for q, _ in found]), np.concatenate([scale for _, scale in found])


def biases(checkpoint: Checkpoint, modules: Sequence[str]) -> NDArray[np.float32] | None:
    """Biases of layers side by side; zeros where a layer has none (keys), None if no layer has one."""
    if all(module.endswith(".key") for module in modules):
        return None
    return np.concatenate([np.zeros(checkpoint.dimensions.n_text_state, np.float32) if module.endswith(".key")
                           else checkpoint.tensor(f"{module}.bias").astype(np.float32) for module in modules])


def matmul_nbits(graph: Graph, x: str, name: str, q: NDArray[np.int8], scale: NDArray[np.float32], bits: int,
                 bias: NDArray[Any] | None = None) -> str:
    """x [..., in] times quantised weights [out, in], scaled per output channel or group of it, plus a bias [out]."""
    outs, ins = q.shape
    block = ins // scale.shape[1] if scale.ndim == 2 else block_size(ins)
    inputs = [x, graph.weight(f"{name}.weight", pack_integers(q, bits, block)),
              graph.weight(f"{name}.scale", repeat_scales(scale, ins // block))]
    if bias is not None:
        inputs += ["", "", graph.weight(f"{name}.bias", bias)]
    return graph.node("MatMulNBits", inputs, f"{name}.output", CONTRIB, K=ins, N=outs, bits=bits,
                      block_size=block, accuracy_level=ACCURACY_LEVEL)


def linear(graph: Graph, checkpoint: Checkpoint, x: str, name: str, modules: Sequence[str] = ()) -> str:
    """Apply linear layers of the checkpoint to x [..., in]: their outputs side by side, [..., sum of outs].

    Args:
        name: of the tensors this makes, and of the only layer where `modules` is empty.
        modules: layers with one input, made into one product (query, key, value).
    """
    modules = modules or (name,)
    if found := side_by_side(checkpoint, modules):
        bits = checkpoint.precision.bits_of(modules[0])  # those of one product keep their bits together
        return matmul_nbits(graph, x, name, *found, bits, biases(checkpoint, modules))
    weights = [checkpoint.tensor(f"{module}.weight") for module in modules]
    bias = biases(checkpoint, modules)
    weight = float_weight(graph, checkpoint, f"{name}.weight", np.concatenate(weights).T)  # [in, out]
    product = graph.node("MatMul", [x, weight], f"{name}.output" if bias is None else f"{name}.product")
    if bias is None:
        return product
    return graph.node("Add", [product, float_weight(graph, checkpoint, f"{name}.bias", bias)], f"{name}.output")


class OnnxRuntimeDialect:
    """How ONNX Runtime wants the model's parts spelled. See `blocks.Dialect`."""

    dtype = np.float32

    def __init__(self, graph: Graph, checkpoint: Checkpoint, cross_in_bytes: bool = False) -> None:
        self.graph, self.checkpoint, self.cross_in_bytes = graph, checkpoint, cross_in_bytes

    def weight(self, name: str) -> str:
        """A float constant."""
        return float_weight(self.graph, self.checkpoint, name)

    def activations(self, x: str, name: str) -> str:
        """As they are."""
        return x

    def stem(self, mel: str) -> str:
        """Two operators."""
        return stem(self, mel)

    def linear(self, x: str, name: str, modules: Sequence[str] = ()) -> str:
        """MatMulNBits, or MatMul and Add."""
        return linear(self.graph, self.checkpoint, x, name, modules)

    def projections(self, x: str, attention: str) -> Sequence[str]:
        """One product, split."""
        return projections(self, x, attention)

    def feed_forward(self, x: str, mlp: str) -> str:
        """One product after the other."""
        return feed_forward(self, x, mlp)

    def layer_norm(self, x: str, name: str) -> str:
        """One operator."""
        scale, bias = (self.weight(f"{name}.{part}") for part in ("weight", "bias"))
        return self.graph.node("LayerNormalization", [x, scale, bias], f"{name}.output", axis=-1, epsilon=1e-5)

    def attend(self, q: str, k: str, v: str, heads: int, name: str) -> str:
        """ONNX Runtime's own operator; k and v may be split by heads already, [batch, heads, length, head size]."""
        return self.graph.node("MultiHeadAttention", [q, k, v], name, CONTRIB, num_heads=heads)

    def residual(self, x: str, out: str, name: str) -> str:
        """One operator."""
        return residual(self, x, out, name)

    def cross_kv(self, states: str, part: str, layer: int, output: str) -> None:
        """Split by heads, and perhaps in bytes."""
        if self.cross_in_bytes:
            flat = self.linear(states, f"decoder.blocks.{layer}.cross_attn.{part}")
            byte_kv.round_kv(self.graph, flat, part, output, self.checkpoint.dimensions)
        else:
            cross_kv(self, states, part, layer, output)


class ApartDialect(OnnxRuntimeDialect):
    """With queries, keys and values of products of their own, so that nothing is split, and no zeros are added to keys.

    The same numbers: a window of 30 s of float32 in 3 % less time (tiny.en).
    """

    def projections(self, x: str, attention: str) -> Sequence[str]:
        """Three products."""
        return projections_apart(self, x, attention)
