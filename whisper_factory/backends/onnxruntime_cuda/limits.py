"""What this backend cannot build, and what a user should know before anything is built. Pure: no file, no library."""

from __future__ import annotations

from whisper_factory.backends.onnx_graph.limits import check_dimensions, check_precision
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
    precision, profile = spec.precision, spec.profile
    check_precision(spec)
    if precision.dtype != "float16":
        raise UserError(f"{ASKED} has no precision '{precision.name}' of {precision.bits} bits over "
                        f"{precision.dtype}: the GPU computes in float16; {choices(precision.name, PRECISIONS)}")
    if spec.kv_cache.mode not in kv_modes(spec):
        raise UserError(f"kv_cache={spec.kv_cache.mode}: {ASKED} binds its cache once, at its capacity, so that steps "
                        f"follow each other without the host; use kv_cache=contiguous, or backend.provider=cpu")
    if spec.kv_cache.max_pages:
        raise UserError(f"kv_cache.max_pages={spec.kv_cache.max_pages} goes with kv_cache=paged; leave it out")
    if min(profile.max_batch_size, profile.max_beam_width, profile.max_new_tokens) < 1:
        raise UserError("profile.max_batch_size, max_beam_width and max_new_tokens must each be 1 or more")
    check_dimensions(spec)
