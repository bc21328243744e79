"""What to change where a device has no room for an engine: computed from the same estimate, never canned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from whisper_factory import backends, memory
from whisper_factory.engine_spec import EngineSpec, Precision, safe_window
from whisper_factory.errors import UserError
from whisper_factory.memory import Estimate

SMALLER = (Precision("float16", 0, "float16"), Precision("int8", 8, "float16"), Precision("int4", 4, "float16"))


def refuse_what_does_not_fit(spec: EngineSpec, found: Estimate, device: str) -> None:
    """Raise UserError if the device has no room for this engine, with the cheapest changes that make it fit."""
    if found.room is None or found.budget is None or found.fits:
        return
    remedies = changes_that_fit(spec, found.room)
    advice = f"what makes it fit: {'; '.join(remedies)}" if remedies else (
        "no smaller batch, beam, precision, window or cache makes it fit: choose a smaller model, or reserve less")
    raise UserError(f"{spec.model} needs {memory.size(found.judged)} at its peak{_turns(found)}, device {device} has "
                    f"{memory.size(max(0, found.room))} for it ({memory.size(found.budget)} less "
                    f"device.reserved_mb={found.reserved / memory.MB:.0f}); {advice}")


@dataclass(frozen=True)
class Change:
    """One thing to give up: the override that does it, and the fields of an EngineSpec that it sets.

    What stands in brackets in `after` is a second override that goes with it.
    """

    key: str
    before: str
    after: str
    fields: dict[str, dict[str, Any]]  # part of the spec -> field -> value

    def __str__(self) -> str:
        return f"{self.key} {self.before} -> {self.after}"


def changes_that_fit(spec: EngineSpec, room: int, most: int = 3) -> list[str]:
    """The cheapest changes after which the engine is let through (`Estimate.fits`), each with what it saves.

    On every axis the smallest step that is enough. Axes come in the order of what they cost a user: how the cache is
    allocated, throughput, search width, precision, the length of an answer, the length of what can be heard. Where
    fewer than `most` single ones are enough, pairs of axes follow, each at its end.
    """
    before = memory.estimate(spec).judged
    axes = [axis for axis in map(list, _axes(spec)) if axis]
    found: list[str] = []
    alone = []
    for axis in axes:
        enough = next((change for change in axis if _after(spec, change).judged <= room), None)
        if enough:
            found.append(_saving(before, _after(spec, enough), enough))
        else:
            alone.append(axis[-1])
    for pair in combinations(alone, 2):
        if (after := _after(spec, *pair)).judged <= room:
            found.append(_saving(before, after, *pair))
    return found[:most]


def _after(spec: EngineSpec, *changes: Change) -> Estimate:
    for change in changes:
        for part, values in change.fields.items():
            spec = replace(spec, **{part: replace(getattr(spec, part), **values)})
    return memory.estimate(spec)


def _saving(before: int, after: Estimate, *changes: Change) -> str:
    return f"{' with '.join(map(str, changes))} saves {memory.size(before - after.judged)}{_turns(after)}"


def _turns(found: Estimate) -> str:
    """Said of an engine that takes less for turns than for the longest audio."""
    return f" at {memory.TURN_FRAMES / 100:.0f} s turns" if found.judged < found.peak else ""


def _axes(spec: EngineSpec) -> Iterator[Iterator[Change]]:
    profile = spec.profile
    yield _pagings(spec)
    for name in ("max_batch_size", "max_beam_width"):
        size = getattr(profile, name)
        yield (Change(f"profile.{name}", str(size), str(smaller), {"profile": {name: smaller}})
               for smaller in _halvings(size))
    yield (Change("precision", spec.precision.name, smaller.name, {"precision": asdict(smaller)})
           for smaller in SMALLER if _bits(smaller) < _bits(spec.precision))
    yield (Change("profile.max_new_tokens", str(profile.max_new_tokens), str(fewer),
                  {"profile": {"max_new_tokens": fewer}}) for fewer in (128, 64) if fewer < profile.max_new_tokens)
    yield (Change("profile.max_input_len", str(profile.max_input_len),
                  f"{frames} (profile.margin_frames={safe_window(frames) - frames})",
                  {"profile": {"max_input_len": frames, "margin_frames": safe_window(frames) - frames}})
           for frames in (1500, 750) if frames < profile.max_input_len)


def _pagings(spec: EngineSpec) -> Iterator[Change]:
    """Paged memory; then windows, and so cross-attention's part of it, no longer than the audio needs."""
    mode, shorter = spec.kv_cache.mode, {"profile": {"padding_strategy": "nopad"}}
    pads = spec.profile.padding_strategy == "max"
    if mode == "paged":
        if pads:
            yield Change("profile.padding_strategy", "max", "nopad", shorter)
    elif "paged" in backends.get(spec.backend).kv_modes(spec):
        yield Change("kv_cache", mode, "paged", {"kv_cache": {"mode": "paged"}})
        if pads:
            yield Change("kv_cache", mode, "paged (profile.padding_strategy=nopad)",
                         {"kv_cache": {"mode": "paged"}, **shorter})


def _halvings(size: int) -> Iterator[int]:
    while size > 1:
        size //= 2
        yield size


def _bits(precision: Precision) -> int:
    return precision.bits or int(precision.dtype.removeprefix("float"))
