"""What to change where a device has no room for an engine: computed from the same estimate, never canned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from whisper_factory import backends, memory
from whisper_factory.engine_spec import EngineSpec, Precision
from whisper_factory.errors import UserError
from whisper_factory.memory import Estimate

TURN_FRAMES = 1000  # 10 s: what a paged cache is judged by; the longest audio takes as much of it as contiguous
MARGIN_FRAMES = 100  # that a short window needs (see the README)
SMALLER = (Precision("float16", 0, "float16"), Precision("int8", 8, "float16"), Precision("int4", 4, "float16"))


def refuse_what_does_not_fit(spec: EngineSpec, found: Estimate, device: str) -> None:
    """Raise UserError if the device has no room for this engine, with the cheapest changes that make it fit."""
    if found.room is None or found.budget is None or found.fits:
        return
    remedies = changes_that_fit(spec, found.room)
    advice = f"what makes it fit: {'; '.join(remedies)}" if remedies else (
        "no smaller batch, beam, precision, window or cache makes it fit: choose a smaller model, or reserve less")
    raise UserError(f"{spec.model} needs {memory.size(found.peak)} at its peak, device {device} has "
                    f"{memory.size(max(0, found.room))} for it ({memory.size(found.budget)} less "
                    f"device.reserved_mb={found.reserved / memory.MB:.0f}); {advice}")


@dataclass(frozen=True)
class Change:
    """One thing to give up: the override that does it, and the fields of an EngineSpec that it sets."""

    key: str
    before: str
    after: str
    fields: dict[str, dict[str, Any]]  # part of the spec -> field -> value
    turn_frames: int | None = None  # fits for audio of this length

    def __str__(self) -> str:
        return f"{self.key} {self.before} -> {self.after}"


def changes_that_fit(spec: EngineSpec, room: int, most: int = 3) -> list[str]:
    """The cheapest changes after which the peak is at most `room` bytes, each with what it saves.

    On every axis the smallest step that is enough. Axes come in the order of what they cost a user: how the cache is
    allocated, throughput, search width, precision, the length of an answer, the length of what can be heard. Where
    fewer than `most` single ones are enough, pairs of axes follow, each at its end.
    """
    before = memory.estimate(spec).peak
    axes = [axis for axis in map(list, _axes(spec)) if axis]
    found: list[str] = []
    alone = []
    for axis in axes:
        enough = next((change for change in axis if _peak(spec, change) <= room), None)
        if enough:
            turns = f" at {enough.turn_frames / 100:.0f} s turns" if enough.turn_frames else ""
            found.append(f"{enough} saves {memory.size(before - _peak(spec, enough))}{turns}")
        else:
            alone.append(axis[-1])
    for pair in combinations(alone, 2):
        if (peak := _peak(spec, *pair)) <= room:
            found.append(f"{pair[0]} with {pair[1]} saves {memory.size(before - peak)}")
    return found[:most]


def _peak(spec: EngineSpec, *changes: Change) -> int:
    turn_frames = None
    for change in changes:
        turn_frames = turn_frames or change.turn_frames
        for part, values in change.fields.items():
            spec = replace(spec, **{part: replace(getattr(spec, part), **values)})
    return memory.estimate(spec, turn_frames=turn_frames).peak


def _axes(spec: EngineSpec) -> Iterator[Iterator[Change]]:
    profile, mode = spec.profile, spec.kv_cache.mode
    can_page = mode != "paged" and "paged" in backends.get(spec.backend).kv_modes(spec)
    yield (Change("kv_cache", mode, "paged", {"kv_cache": {"mode": "paged"}}, TURN_FRAMES) for _ in range(can_page))
    for name in ("max_batch_size", "max_beam_width"):
        size = getattr(profile, name)
        yield (Change(f"profile.{name}", str(size), str(smaller), {"profile": {name: smaller}})
               for smaller in _halvings(size))
    yield (Change("precision", spec.precision.name, smaller.name, {"precision": asdict(smaller)})
           for smaller in SMALLER if _bits(smaller) < _bits(spec.precision))
    yield (Change("profile.max_new_tokens", str(profile.max_new_tokens), str(fewer),
                  {"profile": {"max_new_tokens": fewer}}) for fewer in (128, 64) if fewer < profile.max_new_tokens)
    yield (Change("profile.max_input_len", str(profile.max_input_len),
                  f"{frames} (profile.margin_frames={MARGIN_FRAMES})",
                  {"profile": {"max_input_len": frames, "margin_frames": MARGIN_FRAMES}})
           for frames in (1500, 750) if frames < profile.max_input_len)


def _halvings(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size


def _bits(precision: Precision) -> int:
    return precision.bits or int(precision.dtype.removeprefix("float"))
