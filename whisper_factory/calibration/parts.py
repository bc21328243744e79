"""What a block of the model is made of, for calibration: parts that each add something to the residual.

A part is a LayerNorm, linears that have its outputs in common, what is made of theirs, and a linear that adds to the
residual. The two models, EXACT and ROUNDED, differ in their tensors, and in the encoder's states that they see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_factory.calibration import forward
from whisper_factory.whisper.dimensions import Dimensions

Floats = NDArray[np.float32]
EXACT, ROUNDED = 0, 1


class Unit(NamedTuple):
    """Windows, or texts, whose positions lie one after the other in an array: products of few rows are slow."""

    names: tuple[str, ...]
    ends: tuple[int, ...]  # of each, in positions
    rows: slice  # positions that count in moments
    weight: float = 1.0  # of a position that counts
    windows: tuple[int, ...] = ()  # of the decoder's: which one each text belongs to

    def spans(self) -> list[slice]:
        """Where each one's positions are."""
        return [slice(start, end) for start, end in zip((0, *self.ends), self.ends, strict=False)]


class Models(NamedTuple):
    """The exact model's and the rounded one's, by EXACT and ROUNDED."""

    tensors: tuple[Mapping[str, Floats], dict[str, Floats]]
    states: tuple[list[Floats], list[Floats]]  # of the encoder, for each window: what the decoder sees


@dataclass(frozen=True)
class Part:
    """A part of a block, by OpenAI's names of its layers."""

    norm: str
    into: list[str]  # linears with the norm's outputs as inputs
    middle: Callable[[Floats, Unit, int], Floats]  # the norm's outputs to the inputs of `out`; by which of the models
    out: str


class Wanted(NamedTuple):
    """What the exact model makes of a unit in one part, at the positions that count."""

    normal: Floats  # after the norm
    after: Floats  # the residual, with what the part adds to it


def encoder_block(models: Models, dimensions: Dimensions, layer: int) -> list[Part]:
    """The parts of a block of the encoder."""
    block = f"encoder.blocks.{layer}"
    return [_self_attention(models, block, dimensions.n_audio_head, causal=False), _mlp(models, block)]


def decoder_block(models: Models, dimensions: Dimensions, layer: int) -> list[Part]:
    """The parts of a block of the decoder."""
    block, heads = f"decoder.blocks.{layer}", dimensions.n_text_head
    return [_self_attention(models, block, heads, causal=True), _cross_attention(models, block, heads),
            _mlp(models, block)]


def exactly(x: Floats, unit: Unit, parts: Sequence[Part], models: Models) -> tuple[list[Wanted], Floats]:
    """A unit's residual [positions, state] through the exact model's block: what is wanted of each part, and the
    residual behind it."""
    wanted, tensors = [], models.tensors[EXACT]
    for part in parts:
        normal = forward.layer_norm(x, tensors, part.norm)
        x = x + forward.linear(part.middle(normal, unit, EXACT), tensors, part.out)
        wanted.append(Wanted(*(np.ascontiguousarray(array[unit.rows]) for array in (normal, x))))
    return wanted, x


def _self_attention(models: Models, block: str, heads: int, causal: bool) -> Part:
    names = [f"{block}.attn.{part}" for part in ("query", "key", "value")]

    def mix(x: Floats, unit: Unit, which: int) -> Floats:
        q, k, v = (forward.linear(x, models.tensors[which], name) for name in names)
        return np.concatenate([forward.attention(q[span], k[span], v[span], heads, causal) for span in unit.spans()])

    return Part(f"{block}.attn_ln", names, mix, f"{block}.attn.out")


def _cross_attention(models: Models, block: str, heads: int) -> Part:
    query, key, value = (f"{block}.cross_attn.{part}" for part in ("query", "key", "value"))

    def mix(x: Floats, unit: Unit, which: int) -> Floats:
        tensors, mixed = models.tensors[which], []
        q = forward.linear(x, tensors, query)
        for window, texts in groupby(zip(unit.windows, unit.spans(), strict=True), itemgetter(0)):
            spans, states = [span for _, span in texts], models.states[which][window]
            mixed.append(forward.attention(q[spans[0].start : spans[-1].stop], forward.linear(states, tensors, key),
                                           forward.linear(states, tensors, value), heads))
        return np.concatenate(mixed)

    return Part(f"{block}.cross_attn_ln", [query], mix, f"{block}.cross_attn.out")


def _mlp(models: Models, block: str) -> Part:
    def hidden(x: Floats, unit: Unit, which: int) -> Floats:
        return forward.gelu(forward.linear(x, models.tensors[which], f"{block}.mlp.0"))

    return Part(f"{block}.mlp_ln", [f"{block}.mlp.0"], hidden, f"{block}.mlp.2")
