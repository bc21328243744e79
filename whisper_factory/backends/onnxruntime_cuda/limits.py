"""What this backend cannot build, and what a user should know before anything is built. Pure: no file, no library."""

from __future__ import annotations

from whisper_factory.backends.onnx_graph.limits import check_bound_once, check_dimensions, check_precision
from whisper_factory.engine_spec import EngineSpec, KVMode
from whisper_factory.errors import UserError, choices

PRECISIONS = ("float16", "int8", "int4", "int4_g128", "int4_g32", "int4_auto")
ASKED = "backend.provider=cuda"
TOGETHER = 8  # windows that are encoded at once: more would take memory, and gain nothing
MOST_GRAPHS = 256  # captured; what comes after them runs without
STEP_FRAMES = 32  # windows of audio are a multiple of it: so there are few lengths of them


def kv_modes(spec: EngineSpec) -> tuple[KVMode, ...]:
    """One: the cache is bound once, at its capacity."""
    return ("contiguous",)


def check(spec: EngineSpec) -> None:
    """Raise UserError for a combination that cannot be built."""
    precision = spec.precision
    check_precision(spec)
    if precision.dtype != "float16":
        raise UserError(f"{ASKED} has no precision '{precision.name}' of {precision.bits} bits over "
                        f"{precision.dtype}: the GPU computes in float16; {choices(precision.name, PRECISIONS)}")
    check_bound_once(spec, f"{ASKED} binds its cache once, at its capacity, so that steps follow each other without "
                           f"the host; use kv_cache=contiguous, or backend.provider=cpu")
    check_dimensions(spec)
