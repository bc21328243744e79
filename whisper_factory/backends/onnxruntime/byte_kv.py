"""Cross-attention over keys and values in bytes, for engines that decode several windows at once.

There a step reads the keys and values of all windows, and hardly does anything else: in float32 147 MB for eight
windows of 30 s (tiny.en). In bytes they are a fourth, and the products are MatMulIntegerToFloat's, which multiplies
bytes at the processor's full rate and takes all queries of a window, its beams, at once.

A channel of a window has a scale of its own, kept beside the bytes: the keys' is multiplied into the queries before
they are rounded, the values' into what comes out. Bytes are unsigned around a middle, which is exact on processors
where sums of signed ones saturate.
"""

from __future__ import annotations

import numpy as np

from whisper_factory.backends.onnx_graph.graph import CONTRIB, Graph
from whisper_factory.whisper.dimensions import Dimensions

MIDDLE, LARGEST = 128, 127
TOP = 255
TINY = 1e-8  # the least scale: a channel of zeros has it


def _heads(graph: Graph, x: str, sizes: Dimensions, name: str) -> str:
    """[batch, length, state] -> [batch, length, heads, head size]."""
    return graph.node("Reshape", [x, graph.ints(0, 0, sizes.n_text_head, sizes.head_size)], f"{name}.heads")


def round_kv(graph: Graph, flat: str, part: str, output: str, sizes: Dimensions) -> None:
    """The encoder's output `output` of windows' keys or values `flat` [batch, length, state], and beside it its
    scales.

    Outputs: uint8 keys [batch, heads, head size, length] or values [batch, heads, length, head size], as the products
    read them; `{output}_scale` float32 [batch, 1, state], the keys' with attention's 1 / sqrt(head size) in it.
    """
    name = f"{flat}.bytes"
    size = graph.node("Abs", [flat], f"{name}.size")
    rounded, scale = _round(graph, size, flat, LARGEST, graph.scalar(MIDDLE, np.uint8), name, axis=1)
    order = [0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
    graph.node("Transpose", [_heads(graph, rounded, sizes, name)], output, perm=order)
    factor = sizes.head_size**-0.5 if part == "key" else 1.0
    graph.node("Mul", [scale, graph.scalar(factor, np.float32)], f"{output}_scale")
    shape = ["head_size", "length"] if part == "key" else ["length", "head_size"]
    graph.output(output, np.uint8, ["batch", sizes.n_text_head, *shape])
    graph.output(f"{output}_scale", np.float32, ["batch", 1, sizes.n_text_state])


def inputs(graph: Graph, layer: int, sizes: Dimensions) -> None:
    """Declare the decoder's inputs of a layer: what `round_kv` gives out, of all windows."""
    heads, size = sizes.n_text_head, sizes.head_size
    graph.input(f"cross_k_{layer}", np.uint8, ["windows", heads, size, "length"])
    graph.input(f"cross_v_{layer}", np.uint8, ["windows", heads, "length", size])
    for part in "kv":
        graph.input(f"cross_{part}_{layer}_scale", np.float32, ["windows", 1, sizes.n_text_state])


def attend(graph: Graph, queries: str, layer: int, name: str, sizes: Dimensions) -> str:
    """Cross-attention of queries [windows, count, state]: as they come."""
    keys, values = f"cross_k_{layer}", f"cross_v_{layer}"
    scaled = graph.node("Mul", [queries, f"{keys}_scale"], f"{name}.queries")
    split = graph.node("Transpose", [_heads(graph, scaled, sizes, name)], f"{name}.split", perm=[0, 2, 1, 3])
    one, middle, nothing = graph.scalar(1.0, np.float32), graph.scalar(MIDDLE, np.uint8), graph.scalar(0, np.uint8)
    rounded, scale = _round(graph, graph.node("Abs", [split], f"{name}.sizes"), split, LARGEST, middle, f"{name}.query")
    product = graph.node("MatMulIntegerToFloat", [rounded, keys, one, one, middle, middle], f"{name}.product", CONTRIB)
    scores = graph.node("Mul", [product, scale], f"{name}.scores")
    weights = graph.node("Softmax", [scores], f"{name}.weights", axis=-1)
    rounded, scale = _round(graph, weights, weights, TOP, nothing, f"{name}.weight")
    sums = graph.node("MatMulIntegerToFloat", [rounded, values, one, one, nothing, middle], f"{name}.sums", CONTRIB)
    mixed = graph.node("Transpose", [graph.node("Mul", [sums, scale], f"{name}.mixed")], f"{name}.joined",
                       perm=[0, 2, 1, 3])
    flat = graph.node("Reshape", [mixed, graph.ints(0, 0, sizes.n_text_state)], f"{name}.flat")
    return graph.node("Mul", [flat, f"{values}_scale"], name)


def _round(graph: Graph, sizes: str, x: str, steps: int, zero: str, name: str, axis: int = -1) -> tuple[str, str]:
    """x in bytes around `zero`, and its scales: along `axis`, the largest of its `sizes` over `steps`.

    QuantizeLinear is given a scale of 1, as one for each channel takes it ten times as long.
    """
    largest = graph.node("ReduceMax", [sizes, graph.ints(axis)], f"{name}.largest", keepdims=1)
    step = graph.node("Mul", [largest, graph.scalar(1 / steps, np.float32)], f"{name}.step")
    scale = graph.node("Max", [step, graph.scalar(TINY, np.float32)], f"{name}.scale")
    inverse = graph.node("Reciprocal", [scale], f"{name}.inverse")
    in_steps = graph.node("Mul", [x, inverse], f"{name}.in_steps")
    one = graph.scalar(1.0, np.float32)
    return graph.node("QuantizeLinear", [in_steps, one, zero], f"{name}.rounded"), scale
