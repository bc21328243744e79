"""How many bytes a composition needs, known before anything is built.

Each backend says what its engines take, part by part (`Backend.footprint`); here that is added up, held against the
device (remedies.py turns what does not fit into changes that would).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from whisper_factory import backends
from whisper_factory.engine_spec import EngineSpec, Precision
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tensors import is_quantized, tensor_shapes

SELF_KV, CROSS_KV = "self-attention KV cache", "cross-attention KV cache"  # parts that every backend has
LIBRARIES = "Python and its libraries"
TURN_FRAMES = 1000  # 10 s: what a paged cache is judged by; the longest audio takes as much of it as contiguous
MB = 1_000_000
GB = 1_000_000_000


@dataclass(frozen=True)
class Part:
    """One consumer of memory, in bytes: what it holds once the engine is loaded, and at the highest."""

    name: str
    load: int
    peak: int


@dataclass(frozen=True)
class Estimate:
    """What an engine takes on its device, in bytes."""

    parts: tuple[Part, ...]
    budget: int | None  # of the device; None: not known
    reserved: int  # of that, for others
    turn_peak: int | None = None  # paged: at the highest while audio is no longer than TURN_FRAMES
    least: int | None = None  # at the highest if no layer keeps 8 bits, before it is known which do

    @property
    def load(self) -> int:
        """With the engine loaded and idle."""
        return sum(part.load for part in self.parts)

    @property
    def peak(self) -> int:
        """At the highest."""
        return sum(part.peak for part in self.parts)

    @property
    def room(self) -> int | None:
        """What the device has for this engine."""
        return None if self.budget is None else self.budget - self.reserved

    @property
    def fits(self) -> bool:
        """Whether what is `judged` stays inside the room; true where the device's memory is not known."""
        return self.room is None or self.judged <= self.room

    @property
    def judged(self) -> int:
        """The peak that has to fit: a paged engine's at turns of 10 s, any other's at the longest."""
        return self.peak if self.turn_peak is None else self.turn_peak

    def part(self, name: str) -> Part:
        """A part by its name; nothing where the backend has none of that name."""
        return next((part for part in self.parts if part.name == name), Part(name, 0, 0))


def weight_bytes(dimensions: Dimensions, precision: Precision) -> dict[str, int]:
    """Bytes of a canonical checkpoint's tensors, scales in the precision's dtype: "encoder", "decoder", and the
    token "embedding" apart from the rest of the decoder."""
    width = 2 if precision.dtype == "float16" else 4
    sums = {"encoder": 0, "decoder": 0, "embedding": 0}
    for name, shape in tensor_shapes(dimensions).items():
        part = "embedding" if name.startswith("decoder.token_embedding") else name.partition(".")[0]
        if not (precision.bits and is_quantized(name)):
            sums[part] += prod(shape) * width
            continue
        layer = name.removesuffix(".weight")
        scales = shape[0] * precision.scales_of(layer, shape[1])
        sums[part] += prod(shape) * precision.bits_of(layer) // 8 + scales * width
    return sums


def host_memory() -> int | None:
    """Bytes of memory that this machine has, as its kernel says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemTotal:")), None)


def estimate(spec: EngineSpec, budget: int | None = None, reserved: int = 0) -> Estimate:
    """What `spec` takes, against `budget` bytes of a device of which `reserved` are spoken for."""
    turn_peak = sum(part.peak for part in at_turns(spec)) if spec.kv_cache.mode == "paged" else None
    backend = backends.get(spec.backend)
    return Estimate(tuple(backend.footprint(backend.settle(spec))), budget, reserved, turn_peak)


def at_turns(spec: EngineSpec, turn_frames: int = TURN_FRAMES) -> tuple[Part, ...]:
    """What `spec` takes while the audio that it is given is no longer than `turn_frames` mel frames."""
    backend = backends.get(spec.backend)
    return tuple(backend.footprint(backend.settle(spec), turn_frames))


def table(found: Estimate, device: str) -> list[str]:
    """The estimate as aligned lines, in MB (10^6 bytes): every part at load and at peak, the sums, and the budget."""
    rows = [(part.name, part.load, part.peak) for part in found.parts] + [("total", found.load, found.peak)]
    lines = [f"{'':<38} {'load':>9} {'peak':>9}"]
    lines += [f"{name:<38} {load / MB:>6.1f} MB {peak / MB:>6.1f} MB" for name, load, peak in rows]
    if found.least is not None:
        lines.append(f"with every layer at 8 bits, the most there can be; {size(found.least)} at the peak with none")
    if found.budget is not None and found.room is not None:
        lines.append(f"{device}: {size(found.budget)}, {size(found.reserved)} of it reserved, "
                     f"{size(found.room - found.peak)} left at the peak")
        if found.peak > found.room >= found.judged:
            lines.append(f"{device}: only turns of up to {TURN_FRAMES / 100:.0f} s fit, "
                         f"{size(found.room - found.judged)} left at their peak; longer audio takes more than there is")
    return lines


def size(count: int) -> str:
    """Bytes for a person."""
    return f"{count / GB:.2f} GB" if count >= GB else f"{count / MB:.0f} MB"
