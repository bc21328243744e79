"""Dimensions that the written graphs are for. Pure: no file and no library is touched."""

from __future__ import annotations

from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError, choices
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

BLOCKS = (128, 64, 32, 16)  # weights that share a scale, best first: what MatMulNBits takes
PRECISIONS = {"float32": (0, 0), "float16": (0, 0), "int8": (8, 0), "int4": (4, 0), "int4_g128": (4, 128),
              "int4_g32": (4, 32), "int4_auto": (4, 32)}  # name -> bits, neighbours that share a scale (0: a whole row)
HEAD_MULTIPLE = 8  # of a head's size, for fused attention


def block_size(in_features: int) -> int:
    """The largest block that divides `in_features`.

    Raises:
        UserError: none does.
    """
    for block in BLOCKS:
        if in_features % block == 0:
            return block
    raise UserError(f"an inner dimension of {in_features} fits no block of quantised weights; "
                    f"choices: a multiple of {BLOCKS[-1]}, or precision=float32 or float16")


def check_precision(spec: EngineSpec) -> None:
    """Raise UserError for weights that the graphs have no spelling for."""
    precision, state = spec.precision, spec.dimensions.n_audio_state
    if PRECISIONS.get(precision.name) != (precision.bits, precision.group_size):
        groups = f" in groups of {precision.group_size}" if precision.group_size else ""
        raise UserError(f"backend '{spec.backend}' has no precision '{precision.name}' of {precision.bits} bits"
                        f"{groups}; {choices(precision.name, PRECISIONS)}")
    if precision.group_size and state % precision.group_size:
        raise UserError(f"precision={precision.name}: an inner dimension of {state} is not a multiple of "
                        f"{precision.group_size}; choices: precision=int4, precision=int8, or a group that divides it")
    if precision.bits:
        block_size(state)


def check_bound_once(spec: EngineSpec, why: str) -> None:
    """Raise UserError for a KV cache that does not lie in memory of its capacity, and for a profile without room.

    Args:
        why: such a cache is the only one, and what to do, in an error.
    """
    cache = spec.kv_cache
    if cache.mode != "contiguous":
        raise UserError(f"kv_cache={cache.mode}: {why}")
    if cache.max_pages:
        raise UserError(f"kv_cache.max_pages={cache.max_pages} goes with kv_cache=paged; leave it out")
    check_counts(spec)


def check_counts(spec: EngineSpec) -> None:
    """Raise UserError for a profile without room."""
    profile = spec.profile
    if min(profile.max_batch_size, profile.max_beam_width, profile.max_new_tokens) < 1:
        raise UserError("profile.max_batch_size, max_beam_width and max_new_tokens must each be 1 or more")


def check_dimensions(spec: EngineSpec) -> None:
    """Raise UserError for dimensions that are not a Whisper model's, or that the attention cannot take."""
    sizes = spec.dimensions
    if sizes.n_audio_state != sizes.n_text_state:
        raise UserError(f"model '{spec.model}': n_audio_state {sizes.n_audio_state} is not n_text_state "
                        f"{sizes.n_text_state}; Whisper's cross-attention needs them equal")
    if 2 * sizes.n_audio_ctx != WINDOW_FRAMES:
        raise UserError(f"model '{spec.model}': n_audio_ctx {sizes.n_audio_ctx} is not "
                        f"{WINDOW_FRAMES // 2}, half of Whisper's window of {WINDOW_FRAMES} frames")
    for stack, state, heads in (("audio", sizes.n_audio_state, sizes.n_audio_head),
                                ("text", sizes.n_text_state, sizes.n_text_head)):
        if state % heads or state // heads % HEAD_MULTIPLE:
            raise UserError(f"model '{spec.model}': {heads} heads do not divide n_{stack}_state {state} into "
                            f"sizes that are multiples of {HEAD_MULTIPLE}, which the fused attention needs")
