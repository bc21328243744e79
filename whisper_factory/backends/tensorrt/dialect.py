"""How TensorRT wants the model's parts spelled: plain ONNX operators, weights as integers behind DequantizeLinear.

TensorRT keeps DequantizeLinear of a constant before a MatMul as it is: the engine holds the integers, and dequantises
as it multiplies (benchmarks/tensorrt_builds.py shows their bytes). int8 has one scale an output channel. int4 wants one
for each block of 128 along the inner dimension, so the channel's scale is repeated; groups are blocks as they are.
Scales are float16, as TensorRT-LLM stores them.

The output head stays in the float type of the rest, as the checkpoint has it. Integers for it were tried (a vocabulary
of 51864 by 384, TensorRT for RTX 1.7.1): for one row the builder reserves 48 MB to dequantise the 20 MB of int8 weights
in, where 40 MB of float16 need 8.

The network is strongly typed, so every type here is the one that is computed in: that of activations, but
normalisation, whose sums of squares float16 cannot hold, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.blocks import cross_kv, feed_forward, projections, residual, stem
from whisper_factory.backends.onnx_graph.graph import FLOAT16, FLOAT32, INT4, Graph
from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.quantization.weight_only import pack_int4

if TYPE_CHECKING:
    from whisper_factory.whisper.checkpoint import Checkpoint


class TensorRTDialect:
    """See `onnx_graph.blocks.Dialect`."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint) -> None:
        self.graph, self.checkpoint = graph, checkpoint
        self.dtype: type[np.generic] = np.float16 if checkpoint.precision.dtype == "float16" else np.float32

    @property
    def _half(self) -> bool:
        return self.dtype is np.float16

    def weight(self, name: str) -> str:
        """A constant in the activations' type, which the checkpoint has it in."""
        return self.graph.weight(name, self.checkpoint.tensor(name).astype(self.dtype, copy=False))

    def activations(self, x: str, name: str) -> str:
        """Cast, unless they are float32."""
        return self.graph.node("Cast", [x], name, to=FLOAT16) if self._half else x

    def floats(self, x: str, name: str) -> str:
        """x of the activations' type as float32."""
        return self.graph.node("Cast", [x], name, to=FLOAT32) if self._half else x

    def stem(self, mel: str) -> str:
        """Two operators."""
        return stem(self, mel)

    def linear(self, x: str, name: str, modules: Sequence[str] = ()) -> str:
        """MatMul and Add; the matrix is a constant, or comes from `quantized`."""
        modules = modules or (name,)
        parts = [self.checkpoint.quantized(f"{module}.weight") for module in modules]
        found = [part for part in parts if part is not None]
        if found:
            q, scale = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
            weight = self.quantized(name, q, scale, self.checkpoint.precision.bits_of(modules[0]))
        else:
            weights = [self.checkpoint.tensor(f"{module}.weight") for module in modules]
            weight = self.graph.weight(f"{name}.weight", np.concatenate(weights).T)  # [in, out]
        if all(module.endswith(".key") for module in modules):
            return self.graph.node("MatMul", [x, weight], f"{name}.output")
        product = self.graph.node("MatMul", [x, weight], f"{name}.product")
        return self.graph.node("Add", [product, self._bias(name, modules)], f"{name}.output")

    def _bias(self, name: str, modules: Sequence[str]) -> str:
        """Biases of layers side by side; zeros where a layer has none (keys)."""
        tensors = [np.zeros(self.checkpoint.dimensions.n_text_state, self.dtype) if module.endswith(".key")
                   else self.checkpoint.tensor(f"{module}.bias") for module in modules]
        return self.graph.weight(f"{name}.bias", np.concatenate(tensors).astype(self.dtype, copy=False))

    def quantized(self, name: str, q: NDArray[np.int8], scale: NDArray[np.float32], bits: int) -> str:
        """Integers [out, in], with scales [out], or [out, groups], as a matrix [in, out]."""
        if bits == 8:
            weight = self.graph.weight(f"{name}.weight", q.T)
            return self.graph.node("DequantizeLinear", [weight, self._scales(name, scale)], f"{name}.matrix", axis=1)
        grouped = scale.ndim == 2
        block = q.shape[1] // scale.shape[1] if grouped else block_size(q.shape[1])
        packed = pack_int4(np.ascontiguousarray(q.T))  # of two neighbours, the earlier is the low nibble
        weight = self.graph.external(f"{name}.weight", INT4, q.T.shape, self.graph.weights.append(packed))
        blocks = scale.T if grouped else np.repeat(scale[None, :], q.shape[1] // block, axis=0)
        scales = self._scales(name, blocks)
        return self.graph.node("DequantizeLinear", [weight, scales], f"{name}.matrix", axis=0, block_size=block)

    def _scales(self, name: str, scale: NDArray[np.float32]) -> str:
        """Never zero, which the parser refuses: that of a row of zeros may be anything."""
        least = np.finfo(np.float16 if self._half else np.float32).smallest_subnormal
        return self.graph.weight(f"{name}.scale", np.maximum(scale.astype(self.dtype), least))

    def projections(self, x: str, attention: str) -> Sequence[str]:
        """One product, split."""
        return projections(self, x, attention)

    def feed_forward(self, x: str, mlp: str) -> str:
        """One product after the other."""
        return feed_forward(self, x, mlp)

    def layer_norm(self, x: str, name: str) -> str:
        """In float32."""
        weights: list[NDArray[Any]] = [self.checkpoint.tensor(f"{name}.{part}").astype(np.float32)
                                       for part in ("weight", "bias")]
        constants = [self.graph.weight(f"{name}.{part}", array)
                     for part, array in zip(("weight", "bias"), weights, strict=True)]
        wide = self.floats(x, f"{name}.input")
        out = f"{name}.output"
        normal = self.graph.node("LayerNormalization", [wide, *constants], f"{name}.normal" if self._half else out,
                                 axis=-1, epsilon=1e-5)
        return self.activations(normal, out)

    def heads(self, x: str, name: str, heads: int, scale: bool = False) -> str:
        """[batch, length, state] -> [batch, heads, length, head size]; queries times 1 / sqrt(head size)."""
        size = self.checkpoint.dimensions.n_text_state // heads
        if scale:
            x = self.graph.node("Mul", [x, self.graph.scalar(size**-0.5, self.dtype)], f"{name}.scaled")
        split = self.graph.node("Reshape", [x, self.graph.ints(0, 0, heads, size)], f"{name}.split")
        return self.graph.node("Transpose", [split], f"{name}.heads", perm=[0, 2, 1, 3])

    def merged(self, x: str, name: str) -> str:
        """[batch, heads, length, head size] -> [batch, length, state]."""
        rows = self.graph.node("Transpose", [x], f"{name}.rows", perm=[0, 2, 1, 3])
        return self.graph.node("Reshape", [rows, self.graph.ints(0, 0, -1)], name)

    def scores(self, q: str, k: str, name: str) -> str:
        """q [batch, heads, n, size] against k [batch, heads, m, size]: [batch, heads, n, m]."""
        turned = self.graph.node("Transpose", [k], f"{name}.keys", perm=[0, 1, 3, 2])
        return self.graph.node("MatMul", [q, turned], name)

    def attend_heads(self, q: str, k: str, v: str, name: str) -> str:
        """Attention without a mask over tensors that are split by heads."""
        shares = self.graph.node("Softmax", [self.scores(q, k, f"{name}.scores")], f"{name}.shares", axis=-1)
        return self.graph.node("MatMul", [shares, v], f"{name}.by_head")

    def attend(self, q: str, k: str, v: str, heads: int, name: str) -> str:
        """MatMul, Softmax, MatMul, which TensorRT's compiler knows as attention."""
        split = [self.heads(x, f"{name}.{part}", heads, scale=part == "q")
                 for part, x in zip("qkv", (q, k, v), strict=True)]
        return self.merged(self.attend_heads(split[0], split[1], split[2], name), name)

    def residual(self, x: str, out: str, name: str) -> str:
        """One operator."""
        return residual(self, x, out, name)

    def cross_kv(self, states: str, part: str, layer: int, output: str) -> None:
        """Split by heads."""
        cross_kv(self, states, part, layer, output)
