"""Cross-attention over keys and values in bytes, for engines that decode several windows at once.

There a step reads the keys and values of all windows, and hardly does anything else: in float32 147 MB for eight
windows of 30 s (tiny.en). In bytes they are a fourth, and are multiplied by MatMulInteger, one query at a time: for a
single row of unsigned bytes without a zero point and a matrix of signed bytes it reads the matrix as it lies. In any
other case it packs the matrix first, each time anew, which takes two to three times as long as all four beams of a
window, for which the matrix is in the processor's cache but for the first. Processors that pack it for a row as well
(`runtime.multiplies_rows_as_they_lie`) multiply a window's queries together: AXES says which it is.

A channel of a window has a scale of its own, kept beside the bytes: the keys' is multiplied into the queries before
they are rounded, the values' into what comes out. Queries become unsigned by adding LARGEST, so their products have
LARGEST times a key's sum too much, which is kept beside the keys as well.

Processors without VNNI add two products in 16 bits. Bytes are kept so small that this is exact.
"""

from __future__ import annotations

import numpy as np

from whisper_factory.backends.onnx_graph.graph import FLOAT32, Graph
from whisper_factory.backends.onnxruntime.binding import AXES
from whisper_factory.whisper.dimensions import Dimensions

LARGEST = 90  # of keys, values and queries, either sign
TOP = 181  # of weights; 2 * TOP * LARGEST < 2 ** 15
TINY = 1e-8  # the least scale: a channel of zeros has it
LONGEST_ROW = 1 << 14  # no row has as many numbers


def round_kv(graph: Graph, flat: str, part: str, output: str, sizes: Dimensions) -> None:
    """The encoder's output `output` of windows' keys or values `flat` [batch, length, state], and what belongs to it.

    Outputs: int8 keys [batch, heads, head size, length] or values [batch, heads, length, head size], as the products
    read them; `{output}_scale` float32 [batch, 1, state], the keys' with attention's 1 / sqrt(head size) in it; of keys
    `{output}_sum` float32 [batch, heads, 1, 1, length].
    """
    name, heads, size = f"{flat}.bytes", sizes.n_text_head, sizes.head_size
    channels = graph.node("Transpose", [flat], f"{name}.channels", perm=[0, 2, 1])  # a row's largest is found faster
    magnitude = graph.node("Abs", [channels], f"{name}.size")
    rounded, scale = round_rows(graph, magnitude, channels, LARGEST, graph.scalar(0, np.int8), name)
    keys = output if part == "key" else f"{name}.heads"
    graph.node("Reshape", [rounded, graph.ints(0, heads, size, -1)], keys)
    if part == "value":
        graph.node("Transpose", [keys], output, perm=[0, 1, 3, 2])
    factor = graph.scalar(size**-0.5 if part == "key" else 1.0, np.float32)
    turned = graph.node("Reshape", [scale, graph.ints(0, 1, -1)], f"{name}.scales")
    graph.node("Mul", [turned, factor], f"{output}_scale")
    graph.output(output, np.int8, ["batch", heads, *(["head_size", "length"] if part == "key"
                                                     else ["length", "head_size"])])
    graph.output(f"{output}_scale", np.float32, ["batch", 1, sizes.n_text_state])
    if part == "key":
        row = graph.weight(f"{name}.largest_row", np.full((1, size), LARGEST, np.uint8))
        sums = graph.node("Unsqueeze", [_product(graph, row, output, f"{name}.sums"), graph.ints(2)], f"{output}_sum")
        graph.output(sums, np.float32, ["batch", heads, 1, 1, "length"])


def inputs(graph: Graph, sizes: Dimensions) -> None:
    """Declare the decoder's inputs: AXES, and of each layer what `round_kv` gives out, of all windows, the bytes with
    an axis of queries after the heads'."""
    heads, size = sizes.n_text_head, sizes.head_size
    graph.input(AXES, np.int64, [2])
    graph.node("Concat", [graph.ints(0, 0), AXES, graph.ints(size)], f"{AXES}.shape", axis=0)
    for layer in range(sizes.n_text_layer):
        graph.input(f"cross_k_{layer}", np.int8, ["windows", heads, 1, size, "length"])
        graph.input(f"cross_v_{layer}", np.int8, ["windows", heads, 1, "length", size])
        for part in "kv":
            graph.input(f"cross_{part}_{layer}_scale", np.float32, ["windows", 1, sizes.n_text_state])
        graph.input(f"cross_k_{layer}_sum", np.float32, ["windows", heads, 1, 1, "length"])


def attend(graph: Graph, queries: str, layer: int, name: str, sizes: Dimensions) -> str:
    """Cross-attention of queries [windows, count, state]: as they come. Within, they are [windows, heads, count, 1,
    head size] or [windows, heads, 1, count, head size], as AXES says."""
    keys, values, by_head = f"cross_k_{layer}", f"cross_v_{layer}", [0, 2, 1, 3, 4]
    scaled = graph.node("Mul", [queries, f"{keys}_scale"], f"{name}.queries")
    heads = graph.node("Reshape", [scaled, graph.ints(0, 0, sizes.n_text_head, 1, sizes.head_size)], f"{name}.heads")
    turned = graph.node("Transpose", [heads], f"{name}.turned", perm=by_head)
    split = graph.node("Reshape", [turned, f"{AXES}.shape"], f"{name}.split")
    rounded, scale = round_rows(graph, graph.node("Abs", [split], f"{name}.sizes"), split, LARGEST,
                                graph.scalar(LARGEST, np.uint8), f"{name}.query")
    exact = graph.node("Sub", [_product(graph, rounded, keys, f"{name}.product"), f"{keys}_sum"], f"{name}.exact")
    weights = graph.node("Softmax", [graph.node("Mul", [exact, scale], f"{name}.scores")], f"{name}.weights", axis=-1)
    rounded, scale = round_rows(graph, weights, weights, TOP, graph.scalar(0, np.uint8), f"{name}.weight")
    sums = _product(graph, rounded, values, f"{name}.sums")
    mixed = graph.node("Reshape", [graph.node("Mul", [sums, scale], f"{name}.scaled"),
                                   graph.ints(0, 0, -1, 1, sizes.head_size)], f"{name}.apart")
    joined = graph.node("Transpose", [mixed], f"{name}.joined", perm=by_head)
    flat = graph.node("Reshape", [joined, graph.ints(0, -1, sizes.n_text_state)], f"{name}.flat")
    return graph.node("Mul", [flat, f"{values}_scale"], name)


def _product(graph: Graph, rows: str, matrices: str, name: str) -> str:
    """Unsigned rows [windows, heads, count, 1, in] times signed [windows, heads, 1, in, out], float32."""
    return graph.node("Cast", [graph.node("MatMulInteger", [rows, matrices], f"{name}.integers")], name, to=FLOAT32)


def round_rows(graph: Graph, sizes: str, x: str, steps: int, zero: str, name: str) -> tuple[str, str]:
    """x in bytes around `zero`, and the scales of its rows, along the last axis: the largest of `sizes` over `steps`.

    To QuantizeLinear a row is one block, of whatever length: a scale for each row in the usual way takes it ten times
    as long.
    """
    largest = graph.node("ReduceMax", [sizes, graph.ints(-1)], f"{name}.largest", keepdims=1)
    step = graph.node("Mul", [largest, graph.scalar(1 / steps, np.float32)], f"{name}.step")
    scale = graph.node("Max", [step, graph.scalar(TINY, np.float32)], f"{name}.scale")
    zeros = graph.node("Expand", [zero, graph.node("Shape", [scale], f"{name}.shape")], f"{name}.zeros")
    return graph.node("QuantizeLinear", [x, scale, zeros], f"{name}.rounded", axis=-1, block_size=LONGEST_ROW), scale
