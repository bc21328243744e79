"""What this backend cannot build, and what a user should know before anything is built."""

from __future__ import annotations

import re
from dataclasses import replace

from whisper_factory.backends.onnx_graph.limits import check_bound_once, check_dimensions, check_precision
from whisper_factory.backends.tensorrt import flavours
from whisper_factory.backends.tensorrt.flavours import FULL, RTX, RTX_SERVES, Flavour
from whisper_factory.engine_spec import LEAST_FRAMES, EngineSpec, KVMode, Target
from whisper_factory.errors import UserError

CAPABILITY = re.compile(r"[1-9]\d?\.\d")
ALIGNMENT = 256  # bytes: of the address of every tensor that TensorRT is given


def target_of(spec: EngineSpec) -> Target:
    """The GPU the engine is for.

    Raises:
        UserError: none was named.
    """
    if spec.target is None:
        raise UserError("backend 'tensorrt' builds for one kind of GPU, and this device names none; choose a device "
                        "with a compute capability: device=rtx_4090, say (every device but cpu)")
    return spec.target


def flavour_of(spec: EngineSpec) -> Flavour:
    """The TensorRT that a settled engine is for.

    Raises:
        UserError: no GPU was named.
    """
    target = target_of(spec)
    return flavours.FLAVOURS.get(target.version) or flavours.of(target.compute_capability)


def least_frames(spec: EngineSpec) -> int:
    """The shortest encoder window that the engine is built for; shorter audio is padded to it anyhow."""
    return min(LEAST_FRAMES, spec.window_frames)


def kv_modes(spec: EngineSpec) -> tuple[KVMode, ...]:
    """One: the cache is bound once, at its capacity."""
    return ("contiguous",)


def settle(spec: EngineSpec) -> EngineSpec:
    """The flavour stands in the target's version."""
    if spec.target is None:
        return spec
    return replace(spec, target=replace(spec.target, version=flavour_of(spec).name))


def check(spec: EngineSpec) -> None:
    """Raise UserError for a combination that cannot be built."""
    capability = target_of(spec).compute_capability
    if not CAPABILITY.fullmatch(capability):
        raise UserError(f"device.compute_capability={capability} is not two numbers and a dot; choices: "
                        f"{', '.join(RTX_SERVES)}, or another GPU's for the full TensorRT, as 8.7")
    precision = spec.precision
    check_precision(spec)
    check_bound_once(spec, "backend 'tensorrt' binds its cache once, at its capacity; use kv_cache=contiguous")
    check_dimensions(spec)
    state, multiple = spec.dimensions.n_audio_state, ALIGNMENT // (2 if precision.dtype == "float16" else 4)
    if state % multiple:  # of which every tensor in the KV caches has a whole number
        raise UserError(f"model '{spec.model}': n_audio_state {state} is not a multiple of {multiple}, by which every "
                        f"layer's KV cache begins at a multiple of {ALIGNMENT} bytes, as TensorRT needs")


def notes(spec: EngineSpec) -> list[str]:
    """Lines for the plan."""
    target, flavour = target_of(spec), flavour_of(spec)
    found = []
    if flavour is FULL and target.compute_capability not in RTX_SERVES:
        found.append(f"TensorRT for RTX does not serve compute capability {target.compute_capability} "
                     f"({target.device}; it serves {', '.join(RTX_SERVES)}): this engine is for the full TensorRT, "
                     f"which builds on its device alone")
    if flavour is RTX and flavours.installed(RTX) is None:
        found.append(f"TensorRT for RTX, which builds this engine on any x86-64 Linux machine, is not installed here; "
                     f"{RTX.install}")
    if flavour is FULL:
        found.append("the full TensorRT is driven by its documentation; it was never tried by this project")
    found.append("no GPU has run a TensorRT engine of this project: that its graph is right is proven on the CPU")
    return found
