"""The states of an encoder that was written, with activations that are not rounded to 8 bits: the same numbers on every
machine.

Rounding comes out otherwise on another CPU, and states of such an encoder were seen 0.04 apart between two machines.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory.backends.onnx_graph.encoder import STATES

if TYPE_CHECKING:
    from onnx import NodeProto

FLOAT_ACTIVATIONS = 1  # MatMulNBits' accuracy level


def write_unrounded(encoder: Path, target: Path, wanted: str = STATES) -> None:
    """Write that graph as `target`, beside encoder.onnx, whose weights it shares, as far as one of its outputs: without
    the keys and values that a decoder would read."""
    import onnx

    model = onnx.load(encoder, load_external_data=False)
    graph = model.graph
    last = next(place for place, node in enumerate(graph.node) if wanted in node.output)
    nodes = [changed for node in graph.node[: last + 1] for changed in _unrounded(node)]
    outputs = [value for value in graph.output if value.name == wanted]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(outputs)
    target.write_bytes(model.SerializeToString())


def _unrounded(node: NodeProto) -> list[NodeProto]:
    from onnx import helper

    if node.op_type == "MatMulNBits":
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = FLOAT_ACTIVATIONS
    elif node.op_type == "QuantizeLinear":
        values, scale, _ = node.input
        return [helper.make_node("Div", [values, scale], node.output)]
    elif node.op_type == "MatMulIntegerToFloat":
        values, weight, _, scale, _ = node.input
        matrix = f"{weight}.matrix"
        return [helper.make_node("DequantizeLinear", [weight, scale], [matrix], axis=1),
                helper.make_node("MatMul", [values, matrix], node.output)]
    return [node]
