"""Which layers of a 4-bit engine keep 8 bits, by the names that a composition gives. Imports no numpy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from whisper_factory.errors import UserError, choices
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tensors import is_quantized, tensor_shapes

_FUSED = re.compile(r"(?P<attention>(en|de)coder\.blocks\.\d+\.attn)\.(query|key|value)")
_NEAR = 3  # names that an error suggests
Candidate = tuple[str, ...]  # layers that share their bits


def layers(dimensions: Dimensions) -> dict[str, tuple[int, int]]:
    """The linear layers that are quantised, by OpenAI's names, with their weights' shapes (out, in)."""
    return {name.removesuffix(".weight"): (shape[0], shape[1])
            for name, shape in tensor_shapes(dimensions).items() if is_quantized(name)}


def together(layer: str) -> Candidate:
    """The layers that share their bits with this one: engines multiply by self-attention's three at once."""
    fused = _FUSED.fullmatch(layer)
    return tuple(f"{fused['attention']}.{part}" for part in ("query", "key", "value")) if fused else (layer,)


def candidates(dimensions: Dimensions) -> list[Candidate]:
    """The layers, those that share their bits as one, in the model's order."""
    return [partners for layer in layers(dimensions) if (partners := together(layer))[0] == layer]


def kept(patterns: Sequence[str], dimensions: Dimensions) -> tuple[str, ...]:
    """The layers that names or patterns ("encoder.blocks.0.*") mean, in the model's order.

    Raises:
        UserError: one means no layer; the nearest names are suggested.
    """
    known, chosen = layers(dimensions), set[str]()
    for pattern in patterns:
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(f"precision.keep: no linear layer is named '{pattern}'; {_nearest(pattern, known)}")
        chosen |= {partner for name in found for partner in together(name)}
    return tuple(name for name in known if name in chosen)


def _nearest(pattern: str, known: dict[str, tuple[int, int]]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(pattern, known, n=_NEAR, cutoff=0.3)
    return choices("", [*near, "a pattern as encoder.blocks.*.mlp.2"])
