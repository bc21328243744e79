"""How ONNX Runtime's CUDA provider wants the model's parts spelled: everything in float16, weights as on the CPU.

Quantised linears are MatMulNBits over the same integers in the same packing as the embedded engine's, with scales in
float16; the operator's CUDA kernels take no bias, so it is added. Convolutions are spelled as one product over shifted
copies: cuDNN, which would run them, picks a kernel anew for every length of window, and short windows have many.
The CPU provider runs these graphs too, which is how they are tested and how the end anchor is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.blocks import projections
from whisper_factory.backends.onnx_graph.graph import CONTRIB, FLOAT16, Graph
from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.backends.onnxruntime.pack import biases, pack_integers, repeat_scales, side_by_side
from whisper_factory.whisper.checkpoint import Checkpoint

TAPS = 3  # of Whisper's convolutions
END = np.iinfo(np.int64).max


class CudaDialect:
    """See `onnx_graph.blocks.Dialect`."""

    dtype = np.float16

    def __init__(self, graph: Graph, checkpoint: Checkpoint) -> None:
        self.graph, self.checkpoint = graph, checkpoint
        self._biases: dict[str, str] = {}  # products whose bias is added with the residual -> that bias
        self._sums: dict[str, list[str]] = {}  # residuals that a normalisation is still to add up -> what of

    def weight(self, name: str) -> str:
        """A constant in float16."""
        return self.graph.weight(name, self.checkpoint.tensor(name).astype(np.float16, copy=False))

    def activations(self, x: str, name: str) -> str:
        """Cast."""
        return self.graph.node("Cast", [x], name, to=FLOAT16)

    def stem(self, mel: str) -> str:
        """Two convolutions, each a product over shifted copies side by side."""
        rows = self.graph.node("Transpose", [self.activations(mel, "encoder.mel")], "encoder.mel_rows", perm=[0, 2, 1])
        return self._convolution(self._convolution(rows, "encoder.conv1", 1), "encoder.conv2", 2)

    def _convolution(self, x: str, name: str, stride: int) -> str:
        """x [batch, frames, channels] -> GELU of it convolved, [batch, frames / stride, state]."""
        graph = self.graph
        padded = graph.node("Pad", [x, graph.ints(0, 1, 0, 0, 1, 0)], f"{name}.padded")
        axis, step = graph.ints(1), graph.ints(stride)
        bounds = [(graph.ints(tap), graph.ints(tap - TAPS + 1 if tap + 1 < TAPS else END)) for tap in range(TAPS)]
        taps = [graph.node("Slice", [padded, first, last, axis, step], f"{name}.tap{tap}")
                for tap, (first, last) in enumerate(bounds)]
        side = graph.node("Concat", taps, f"{name}.taps", axis=2)
        kernel: NDArray[np.float16] = self.checkpoint.tensor(f"{name}.weight").astype(np.float16)  # [out, in, taps]
        matrix = graph.weight(f"{name}.weight", kernel.transpose(2, 1, 0).reshape(-1, len(kernel)))
        return self._biased_gelu(graph.node("MatMul", [side, matrix], f"{name}.product"), name)

    def _biased_gelu(self, x: str, name: str) -> str:
        return self.graph.node("BiasGelu", [x, self.weight(f"{name}.bias")], f"{name}.gelu", CONTRIB)

    def _product(self, x: str, name: str, modules: Sequence[str], output: str) -> str:
        """x times the matrices of layers side by side, without their biases."""
        if found := side_by_side(self.checkpoint, modules):
            return self._integers(x, name, *found, self.checkpoint.precision.bits_of(modules[0]), output)
        weights = [self.checkpoint.tensor(f"{module}.weight") for module in modules]
        matrix = self.graph.weight(f"{name}.weight", np.concatenate(weights).T)  # [in, out]
        return self.graph.node("MatMul", [x, matrix], output)

    def _integers(self, x: str, name: str, q: NDArray[np.int8], scale: NDArray[np.float32], bits: int, output: str
                  ) -> str:
        outs, ins = q.shape
        block = ins // scale.shape[1] if scale.ndim == 2 else block_size(ins)
        inputs = [x, self.graph.weight(f"{name}.weight", pack_integers(q, bits, block)),
                  self.graph.weight(f"{name}.scale", repeat_scales(scale, ins // block).astype(np.float16))]
        return self.graph.node("MatMulNBits", inputs, output, CONTRIB, K=ins, N=outs, bits=bits,
                               block_size=block)

    def linear(self, x: str, name: str, modules: Sequence[str] = ()) -> str:
        """A product, and a bias where there is one; that of an attention's output is left for `residual`."""
        if name.endswith(".out"):
            return self._owing(x, name)
        return self._linear(x, name, modules or (name,), f"{name}.output")

    def _linear(self, x: str, name: str, modules: Sequence[str], output: str) -> str:
        bias = biases(self.checkpoint, modules)
        if bias is None:
            return self._product(x, name, modules, output)
        product = self._product(x, name, modules, f"{name}.product")
        return self.graph.node("Add", [product, self.graph.weight(f"{name}.bias", bias.astype(np.float16))], output)

    def _owing(self, x: str, name: str) -> str:
        """A product whose bias `residual` adds."""
        product = self._product(x, name, [name], f"{name}.product")
        self._biases[product] = self.weight(f"{name}.bias")
        return product

    def projections(self, x: str, attention: str) -> Sequence[str]:
        """One product, split."""
        return projections(self, x, attention)

    def feed_forward(self, x: str, mlp: str) -> str:
        """One product after the other; the first one's bias goes with the GELU."""
        hidden = self._product(x, f"{mlp}.0", [f"{mlp}.0"], f"{mlp}.0.product")
        return self._owing(self._biased_gelu(hidden, f"{mlp}.0"), f"{mlp}.2")

    def layer_norm(self, x: str, name: str) -> str:
        """One operator, which sums in float32; with the residual before it and its bias, where there is one."""
        scale, bias = (self.weight(f"{name}.{part}") for part in ("weight", "bias"))
        if x in self._sums:
            first, second, owed = self._sums.pop(x)
            return self.graph.nodes("SkipLayerNormalization", [first, second, scale, bias, owed],
                                    [f"{name}.output", "", "", x], CONTRIB, epsilon=1e-5)[0]
        return self.graph.node("LayerNormalization", [x, scale, bias], f"{name}.output", axis=-1, epsilon=1e-5)

    def residual(self, x: str, out: str, name: str) -> str:
        """Added up by the normalisation that follows: one kernel for a bias, a sum and a norm."""
        self._sums[name] = [x, out, self._biases.pop(out)]
        return name

    def attend(self, q: str, k: str, v: str, heads: int, name: str) -> str:
        """ONNX Runtime's own operator, flash attention on the GPU: all three as [batch, length, state]."""
        return self.graph.node("MultiHeadAttention", [q, k, v], name, CONTRIB, num_heads=heads)

    def cross_kv(self, states: str, part: str, layer: int, output: str) -> None:
        """As they come out of the product, [batch, length, state], which is how `attend` reads them."""
        name = f"decoder.blocks.{layer}.cross_attn.{part}"
        self._linear(states, name, [name], output)
        self.graph.output(output, self.dtype, ["batch", "length", self.checkpoint.dimensions.n_text_state])
