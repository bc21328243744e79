"""An encoder that was written, with activations that are not rounded to 8 bits: the same numbers on every machine.

Rounding comes out otherwise on another CPU, and states of such an encoder were seen 0.04 apart between two machines.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto

FLOAT_ACTIVATIONS = 1  # MatMulNBits' accuracy level
CROSS = "decoder."  # nodes behind the states: keys and values for the decoder, which may be outputs in 8 bits


def write_unrounded(encoder: Path, target: Path) -> None:
    """Write that graph as `target`, beside encoder.onnx, whose weights it shares."""
    import onnx

    model = onnx.load(encoder, load_external_data=False)
    nodes = [changed for node in model.graph.node for changed in _unrounded(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    target.write_bytes(model.SerializeToString())


def _unrounded(node: NodeProto) -> list[NodeProto]:
    from onnx import helper

    if node.op_type == "MatMulNBits":
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = FLOAT_ACTIVATIONS
    elif node.op_type == "QuantizeLinear" and not node.name.startswith(CROSS):
        values, scale, _ = node.input
        return [helper.make_node("Div", [values, scale], node.output)]
    elif node.op_type == "MatMulIntegerToFloat":
        values, weight, _, scale, _ = node.input
        matrix = f"{weight}.matrix"
        return [helper.make_node("DequantizeLinear", [weight, scale], [matrix], axis=1),
                helper.make_node("MatMul", [values, matrix], node.output)]
    return [node]
