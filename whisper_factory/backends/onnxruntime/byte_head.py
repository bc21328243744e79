"""The vocabulary's matrix in bytes, and the ranking of tokens, for engines that decode several windows at once.

MatMulNBits (head.py) multiplies a few rows; for 32, eight windows in four beams, MatMulIntegerToFloat takes two fifths
of its time. It has one scale for a row of the vocabulary and one for a row of states, which by itself changes more
tokens than a scale for each block: a few channels of the embedding are thirty times the others, which are lost beside
them. So channels are balanced first. Those of the embedding are divided by factors and those of the states multiplied
by them, in the gain and bias of the normalisation before; what the runtime reads of the embedding is multiplied by them
in the graph. tiny.en, 650 states of speech, error of the logits (less their mean) against float32's:

    integers of the vocabulary and of states     all     the best 20
    a scale a block of 128 (head.py)             0.094   0.059
    a scale a row                                0.153   0.088
    a scale a row, balanced                      0.059   0.047

Tokens are ranked in two stages: the best of each group of tokens, then the best of the best groups. TopK over the whole
vocabulary takes four times as long.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whisper_factory.backends.onnx_graph.embedding import BITS, NAME
from whisper_factory.backends.onnx_graph.graph import CONTRIB, Graph, WeightFile
from whisper_factory.backends.onnxruntime.byte_kv import round_rows
from whisper_factory.backends.onnxruntime.pack import OnnxRuntimeDialect
from whisper_factory.quantization.weight_only import quantize
from whisper_factory.whisper.checkpoint import Checkpoint

STEPS, MIDDLE = 127, 128  # of states, either sign, around a zero point
NORM = "decoder.ln"
GROUPS = range(16, 65)  # sizes of groups of tokens that are tried
LEAST_GROUPS = 256  # fewer are not worth a stage; and no more tokens are ever ranked


def factors(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """What channels of the embedding are divided by, [state]: after it they are as large as those of the states.

    A state's channel is about as large as its gain and bias, the embedding's as its largest token's.
    """
    table = checkpoint.tensor(f"{NAME}.weight")
    gain, bias = (checkpoint.tensor(f"{NORM}.{part}").astype(np.float32) for part in ("weight", "bias"))
    largest = np.maximum(table.max(axis=0), -table.min(axis=0)).astype(np.float32)
    sizes = np.sqrt(gain * gain + bias * bias)
    known = (largest > 0) & (sizes > 0)
    found: NDArray[np.float32] = np.sqrt(np.where(known, largest, 1) / np.where(known, sizes, 1))
    return found


def write_embedded(dialect: OnnxRuntimeDialect, embedded: str) -> str:
    """Rows that were read of the table, [rows, new, state], as the embeddings that they stand for."""
    channels = dialect.graph.weight(f"{NAME}.factors", factors(dialect.checkpoint))
    return dialect.graph.node("Mul", [embedded, channels], f"{NAME}.rows")


def write_logits(dialect: OnnxRuntimeDialect, file: WeightFile, x: str, bias: str) -> None:
    """Write the table, and the product: what the last block made, [rows, state] -> `logits`, as head.py's.

    The table is turned over when the session is opened. `bias` is added before a row is scaled, which costs nothing and
    leaves zeros and minus infinity what they are.
    """
    graph, checkpoint = dialect.graph, dialect.checkpoint
    balance = factors(checkpoint)
    table = checkpoint.tensor(f"{NAME}.weight")
    q, scale = quantize(table.astype(np.float32) / balance, BITS)
    norm = [graph.weight(f"{NORM}.{part}", checkpoint.tensor(f"{NORM}.{part}").astype(np.float32) * balance)
            for part in ("weight", "bias")]
    states = graph.node("LayerNormalization", [x, *norm], f"{NORM}.output", axis=-1, epsilon=1e-5)
    sizes = graph.node("Abs", [states], f"{NORM}.sizes")
    rounded, steps = round_rows(graph, sizes, states, STEPS, graph.scalar(MIDDLE, np.uint8), NORM)
    weight = graph.external(f"{NAME}.weight", q.dtype, q.shape, file.append(q))
    columns = graph.node("Transpose", [weight], f"{NAME}.columns", perm=[1, 0])
    scales = graph.external(f"{NAME}.scale", scale.dtype, scale.shape, file.append(scale))
    inputs = [rounded, columns, graph.scalar(1.0, np.float32), scales, graph.scalar(MIDDLE, np.uint8), "", bias]
    product = graph.node("MatMulIntegerToFloat", inputs, f"{NAME}.product", CONTRIB)
    graph.node("Mul", [product, steps], "logits")


def write_ranking(graph: Graph, count: str, n_vocab: int) -> None:
    """As head.py's."""
    tokens = _best(graph, count, n_vocab)
    probable = graph.node("GatherElements", [graph.node("Softmax", ["logits"], "probabilities", axis=-1), tokens],
                          "ranked_probabilities", axis=-1)
    graph.node("Log", [probable], "ranked_logprobs")


def _best(graph: Graph, count: str, n_vocab: int) -> str:
    """`ranked_tokens`. A group is every so-manieth token, as the largest of columns is found faster than that of rows;
    candidates are in order, so that the lower of two equal tokens comes first. (Where more are equal than are ranked,
    they are not the lowest.)"""
    size = next((size for size in GROUPS if n_vocab % size == 0 and n_vocab // size >= LEAST_GROUPS), 0)
    if not size:
        graph.nodes("TopK", ["logits", count], ["ranked_logits", "ranked_tokens"], axis=-1)
        return "ranked_tokens"
    groups = n_vocab // size
    grouped = graph.node("Reshape", ["logits", graph.ints(0, size, groups)], "groups")
    largest = graph.node("ReduceMax", [grouped, graph.ints(1)], "groups.largest", keepdims=0)
    graph.nodes("TopK", [largest, count], ["groups.best_logits", "groups.best"], axis=-1)
    graph.nodes("TopK", ["groups.best", count], ["groups.in_order", "groups.places"], axis=-1, largest=0)
    firsts = graph.node("Unsqueeze", ["groups.in_order", graph.ints(1)], "groups.firsts")  # [rows, 1, count]
    steps = graph.node("Unsqueeze", [graph.ints(*range(0, n_vocab, groups)), graph.ints(1)], "groups.steps")
    members = graph.node("Add", [firsts, steps], "groups.members")
    candidates = graph.node("Reshape", [members, graph.ints(0, -1)], "candidates")
    logits = graph.node("GatherElements", ["logits", candidates], "candidates.logits", axis=-1)
    graph.nodes("TopK", [logits, count], ["ranked_logits", "candidates.best"], axis=-1)
    return graph.node("GatherElements", [candidates, "candidates.best"], "ranked_tokens", axis=-1)
