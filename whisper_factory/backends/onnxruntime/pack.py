"""Weights into the shapes that ONNX Runtime's operators read, and the nodes that apply them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnxruntime.limits import block_size
from whisper_factory.backends.onnxruntime.graph import CONTRIB, Graph

if TYPE_CHECKING:
    from whisper_factory.whisper.checkpoint import Checkpoint

import os
ACCURACY_LEVEL = int(os.environ.get("LEVEL","4"))  # EXPERIMENT


def pack_integers(q: NDArray[np.int8], bits: int, block: int) -> NDArray[np.uint8]:
    """Symmetric integers [out, in] as MatMulNBits reads them: uint8 [out, in / block, block * bits / 8].

    Unsigned around the operator's default zero point (128, or 8); of two 4-bit values in a byte, the earlier
    is the low nibble.
    """
    unsigned = (q.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    if bits == 4:
        unsigned = unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)
    return unsigned.reshape(q.shape[0], q.shape[1] // block, block * bits // 8)


def repeat_scales(scale: NDArray[np.float32], blocks: int) -> NDArray[np.float32]:
    """One scale an output channel -> one a block, [out * blocks]: every block of a channel has the same."""
    return np.repeat(scale, blocks)


def float_weight(graph: Graph, name: str, array: NDArray[Any]) -> str:
    """A float constant; the CPU computes in float32, so float16 is stored and widened when a session loads.

    Vectors are stored as float32: they are nothing to save, and a cast less.
    """
    if array.ndim == 1:
        return graph.weight(name, array.astype(np.float32))
    stored = graph.weight(name, array)
    return stored if array.dtype == np.float32 else graph.node("Cast", [stored], f"{name}.float32", to=1)


def _bias(checkpoint: Checkpoint, modules: Sequence[str], widths: Sequence[int]) -> NDArray[Any] | None:
    """Biases of layers side by side; zeros where a layer has none (keys), None if no layer has one."""
    if all(module.endswith(".key") for module in modules):
        return None
    return np.concatenate([np.zeros(width, np.float32) if module.endswith(".key")
                           else checkpoint.tensor(f"{module}.bias").astype(np.float32)
                           for module, width in zip(modules, widths, strict=True)])


def matmul_nbits(graph: Graph, x: str, name: str, q: NDArray[np.int8], scale: NDArray[np.float32], bits: int,
                 bias: NDArray[Any] | None = None) -> str:
    """x [..., in] times quantised weights [out, in], scaled per output channel, plus a bias [out]."""
    outs, ins = q.shape
    block = block_size(ins)
    inputs = [x, graph.weight(f"{name}.weight", pack_integers(q, bits, block)),
              graph.weight(f"{name}.scale", repeat_scales(scale, ins // block))]
    if bias is not None:
        inputs += ["", "", graph.weight(f"{name}.bias", bias)]
    return graph.node("MatMulNBits", inputs, f"{name}.output", CONTRIB, K=ins, N=outs, bits=bits,
                      block_size=block, accuracy_level=4 if name=="decoder.head" else int(os.environ.get("ENCLEVEL","4")) if "encoder" in name else ACCURACY_LEVEL)


def linear(graph: Graph, checkpoint: Checkpoint, x: str, name: str, modules: Sequence[str] = ()) -> str:
    """Apply linear layers of the checkpoint to x [..., in]: their outputs side by side, [..., sum of outs].

    Args:
        name: of the tensors this makes, and of the only layer where `modules` is empty.
        modules: layers with one input, made into one product (query, key, value).
    """
    modules = modules or (name,)
    parts = [checkpoint.quantized(f"{module}.weight") for module in modules]
    found = [part for part in parts if part is not None]
    if found:
        bias = _bias(checkpoint, modules, [q.shape[0] for q, _ in found])
        return matmul_nbits(graph, x, name, np.concatenate([q for q, _ in found]),
                            np.concatenate([scale for _, scale in found]), checkpoint.precision.bits, bias)
    weights = [checkpoint.tensor(f"{module}.weight") for module in modules]
    bias = _bias(checkpoint, modules, [weight.shape[0] for weight in weights])
    weight = float_weight(graph, f"{name}.weight", np.concatenate(weights).T)  # [in, out]
    product = graph.node("MatMul", [x, weight], f"{name}.output" if bias is None else f"{name}.product")
    if bias is None:
        return product
    return graph.node("Add", [product, float_weight(graph, f"{name}.bias", bias)], f"{name}.output")


def layer_norm(graph: Graph, checkpoint: Checkpoint, x: str, name: str) -> str:
    """Layer normalisation of the last axis, epsilon 1e-5 as in OpenAI's model."""
    scale, bias = (float_weight(graph, f"{name}.{part}", checkpoint.tensor(f"{name}.{part}"))
                   for part in ("weight", "bias"))
    return graph.node("LayerNormalization", [x, scale, bias], f"{name}.output", axis=-1, epsilon=1e-5)


def mlp(graph: Graph, checkpoint: Checkpoint, x: str, block: str) -> str:
    """A block's feed-forward half with its residual: x + mlp.2(gelu(mlp.0(mlp_ln(x))))."""
    hidden = linear(graph, checkpoint, layer_norm(graph, checkpoint, x, f"{block}.mlp_ln"), f"{block}.mlp.0")
    active = graph.node("Gelu", [hidden], f"{block}.mlp.gelu")
    return graph.node("Add", [x, linear(graph, checkpoint, active, f"{block}.mlp.2")], f"{block}.mlp.residual")
