"""What this backend cannot build, and what a user should know before anything is built. Pure: no file, no library."""

from __future__ import annotations

from whisper_factory.backends.cuda.layout import least_pages, most_pages
from whisper_factory.backends.onnx_graph.limits import check_counts, check_dimensions, check_precision
from whisper_factory.engine_spec import KV_MODES, EngineSpec, KVMode
from whisper_factory.errors import UserError, choices

PRECISIONS = ("float16", "int8", "int4", "int4_g128", "int4_g32", "int4_auto")
ASKED = "backend.provider=cuda"
TOGETHER = 8  # windows that are encoded at once: more would take memory, and gain nothing
MOST_GRAPHS = 256  # captured; what comes after them runs without
STEP_FRAMES = 32  # windows of audio are a multiple of it: so there are few lengths of them


def kv_modes(spec: EngineSpec) -> tuple[KVMode, ...]:
    """Both."""
    return KV_MODES


def check(spec: EngineSpec) -> None:
    """Raise UserError for a combination that cannot be built."""
    precision = spec.precision
    check_precision(spec)
    if precision.dtype != "float16":
        raise UserError(f"{ASKED} has no precision '{precision.name}' of {precision.bits} bits over "
                        f"{precision.dtype}: the GPU computes in float16; {choices(precision.name, PRECISIONS)}")
    _check_cache(spec)
    check_counts(spec)
    check_dimensions(spec)


def _check_cache(spec: EngineSpec) -> None:
    cache = spec.kv_cache
    if cache.mode not in KV_MODES:
        raise UserError(f"{ASKED} has no KV cache '{cache.mode}'; {choices(cache.mode, KV_MODES)}")
    if cache.mode == "contiguous" and cache.max_pages:
        raise UserError(f"kv_cache.max_pages={cache.max_pages} goes with kv_cache=paged; leave it out")
    if cache.mode == "paged" and cache.tokens_per_page < 1:
        raise UserError(f"kv_cache.tokens_per_page={cache.tokens_per_page} is not a page; choices: 1 or more")
    if cache.max_pages and cache.max_pages < least_pages(spec):
        raise UserError(f"kv_cache.max_pages={cache.max_pages} cannot hold a sequence of each window, or one window's "
                        f"beams ({ASKED} gives each the pages of its longest at once); choices: {least_pages(spec)} or "
                        f"more ({most_pages(spec)} are enough for everything), or null for enough")
