"""What this backend cannot build, said before any work. Pure: no file and no library is touched."""

from __future__ import annotations

from whisper_factory.backends.onnx_graph.limits import check_dimensions, check_precision
from whisper_factory.backends.onnxruntime import sizes
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError, choices
from whisper_factory.whisper.dimensions import WINDOW_FRAMES


def check(spec: EngineSpec) -> None:
    """Raise UserError for a combination that cannot be built here."""
    profile, cache = spec.profile, spec.kv_cache
    check_precision(spec)
    if cache.mode not in ("contiguous", "paged"):
        raise UserError(f"backend 'onnxruntime' has no KV cache '{cache.mode}'; "
                        f"{choices(cache.mode, ('contiguous', 'paged'))}")
    if cache.mode == "paged" and cache.tokens_per_page < 1:
        raise UserError(f"kv_cache.tokens_per_page={cache.tokens_per_page} is not a page; choices: 1 or more")
    if cache.mode == "contiguous" and cache.max_pages:
        raise UserError(f"kv_cache.max_pages={cache.max_pages} goes with kv_cache=paged; leave it out")
    if min(profile.max_batch_size, profile.max_beam_width, profile.max_new_tokens) < 1:
        raise UserError("profile.max_batch_size, max_beam_width and max_new_tokens must each be 1 or more")
    if spec.window_frames < 2 or spec.window_frames % 2:
        raise UserError(f"profile '{profile.name}': a window of {spec.window_frames} frames cannot be halved by "
                        f"the encoder; choose an even max_input_len from 2 to {WINDOW_FRAMES}")
    if not 0 <= profile.end_anchor <= spec.dimensions.n_audio_ctx:
        raise UserError(f"profile.end_anchor={profile.end_anchor} is not a number of encoder states; "
                        f"choices: 0 (none) to {spec.dimensions.n_audio_ctx}")
    if cache.max_pages and cache.max_pages < sizes.least_pages(spec):
        raise UserError(f"kv_cache.max_pages={cache.max_pages} cannot hold the beginnings of {spec.max_rows} sequences "
                        f"(max_batch_size times max_beam_width); choices: {sizes.least_pages(spec)} or more "
                        f"({sizes.most_pages(spec)} are enough for everything), or null for enough")
    check_dimensions(spec)
