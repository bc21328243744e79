"""What is wrong with a composition, as far as types cannot tell: names, ranges, and combinations nobody can build."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whisper_factory import backends
from whisper_factory.engine_spec import KV_MODES, LONGEST_PROMPT, PADDING_STRATEGIES
from whisper_factory.errors import UserError, choices
from whisper_factory.quantization import mixed
from whisper_factory.whisper.dimensions import VOCABULARIES, WINDOW_FRAMES, Dimensions

if TYPE_CHECKING:
    from whisper_factory.schema import Composition, ModelConfig

STOPS = ("fetch", "convert", "build")
SOURCES = ("auto", "openai", "package", "huggingface", "path")
BUNDLED = ("none", "quick", "full")
PRECISION_DTYPES = ("float32", "float16")
LEAST_POINTS = 0.01  # of precision.max_wer_delta: less than a word, on any clips that one has
CALIBRATIONS = ("none", "scale", "gptq")


def of(composition: Composition) -> list[str]:
    """Every problem, a line each; none of a composition that can be planned."""
    return [*_wrong_names(composition), *_wrong_dimensions(composition.model), *_wrong_sizes(composition),
            *_wrong_integers(composition), *_wrong_calibration(composition)]


def _wrong_names(composition: Composition) -> list[str]:
    listed: list[tuple[str, str | None, tuple[str, ...]]] = [
        ("backend.name", composition.backend.name, backends.BACKENDS),
        ("backend.provider", composition.backend.provider, tuple(backends.PROVIDERS)),
        ("validation.bundled", composition.validation.bundled, BUNDLED),
        ("weights.source", composition.weights.source, SOURCES),
        ("kv_cache.mode", composition.kv_cache.mode, KV_MODES),
        ("profile.padding_strategy", composition.profile.padding_strategy, PADDING_STRATEGIES),
        ("precision.dtype", composition.precision.dtype, PRECISION_DTYPES),
    ]
    if composition.stop_after is not None:
        listed.append(("stop_after", composition.stop_after, STOPS))
    problems = [f"{key}: unknown '{got}'; {choices(str(got), ok)}" for key, got, ok in listed if got not in ok]
    for key, part in (("model", composition.model), ("precision", composition.precision),
                      ("profile", composition.profile)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part.name):  # it becomes part of a directory's name
            problems.append(f"{key}.name: '{part.name}' may hold letters, digits, '.', '_' and '-' only")
    if composition.backend.provider != "cpu" and composition.backend.name != "onnxruntime":
        problems.append(f"backend.provider={composition.backend.provider} goes with backend=onnxruntime; leave it out")
    if composition.precision.bits not in (0, 4, 8):
        problems.append(f"precision.bits={composition.precision.bits}: choices: 0 (not quantised), 4, 8")
    if composition.weights.source not in ("huggingface", "path") and composition.weights.path:
        problems.append("weights.path goes with weights=path (a .pt file) or weights=huggingface (a directory)")
    return problems


def _wrong_dimensions(model: ModelConfig) -> list[str]:
    sizes = vars(model.dimensions)
    problems = [f"model.dimensions.{name}={size}: must be 1 or more" for name, size in sizes.items() if size < 1]
    if sizes["n_vocab"] not in VOCABULARIES:
        problems.append(f"model.dimensions.n_vocab={sizes['n_vocab']}: choices: "
                        f"{', '.join(map(str, VOCABULARIES))} (OpenAI's vocabularies; added tokens are not supported)")
    return problems


def _wrong_integers(composition: Composition) -> list[str]:
    """What cannot be meant by groups of weights, and by layers that keep 8 bits."""
    precision, problems = composition.precision, []
    if precision.group_size < 0 or (precision.group_size and precision.bits != 4):
        problems.append(f"precision.group_size={precision.group_size} goes with 4 bits; choices: "
                        "precision=int4_g32, precision=int4_g128")
    if precision.keep and precision.bits != 4:
        problems.append("precision.keep names layers of a 4-bit engine that keep 8 bits; choices: precision=int4_g32, "
                        "precision=int4_g128, precision=int4")
    if precision.max_wer_delta is not None:
        problems += _wrong_budget(composition, precision.max_wer_delta)
    sizes = vars(composition.model.dimensions)
    if min(sizes.values()) < 1:  # which is complained of already
        return problems
    try:
        mixed.kept(precision.keep, Dimensions(**sizes))
    except UserError as error:
        problems.append(str(error))
    return problems


def _wrong_budget(composition: Composition, points: float) -> list[str]:
    """What does not go with layers that are chosen by a budget of word errors."""
    precision, method, problems = composition.precision, composition.calibration.method, []
    key = "precision.max_wer_delta"
    if not LEAST_POINTS <= points <= 100:
        problems.append(f"{key}={points:g}: must be {LEAST_POINTS} to 100 points")
    if precision.bits != 4:
        problems.append(f"{key} says how much a 4-bit engine may lose before its layers keep 8 bits; choices: "
                        "precision=int4_auto, precision=int4_g32, precision=int4_g128, precision=int4")
    if precision.keep:
        problems.append(f"precision.keep names the layers that {key} would choose; leave one of them out "
                        "(precision=int4_g32 with precision.keep)")
    if method != "none":
        problems.append(f"{key} weighs plain rounding, not what calibration={method} makes; use calibration=none, or "
                        "precision=int4_g32")
    return problems


def _wrong_calibration(composition: Composition) -> list[str]:
    calibration, precision, problems = composition.calibration, composition.precision, []
    if calibration.method not in CALIBRATIONS:
        problems.append(f"calibration.method: unknown '{calibration.method}'; "
                        f"{choices(calibration.method, CALIBRATIONS)}")
    if calibration.method != "none" and precision.bits != 4:
        problems.append(f"calibration={calibration.method} is for 4 bits, not for precision={precision.name}; choices: "
                        "precision=int4, precision=int4_g32, precision=int4_g128, calibration=none")
    if calibration.method == "none" and calibration.clips and precision.max_wer_delta is None:
        problems.append("calibration.clips goes with calibration=gptq or calibration=scale, or precision=int4_auto")
    if not 0 <= calibration.seed < 1 << 63:
        problems.append(f"calibration.seed={calibration.seed}: must be 0 to {(1 << 63) - 1}")
    return problems


def _wrong_sizes(composition: Composition) -> list[str]:
    profile, text_ctx = composition.profile, composition.model.dimensions.n_text_ctx
    positions = composition.model.dimensions.n_audio_ctx
    limits: list[tuple[str, float, float, float]] = [
        ("device.memory_gb", 1 if composition.device.memory_gb is None else composition.device.memory_gb, 0.001, 1e6),
        ("device.reserved_mb", composition.device.reserved_mb, 0, 1e9),
        ("profile.max_batch_size", profile.max_batch_size, 1, 1024),
        ("profile.max_beam_width", profile.max_beam_width, 1, 64),
        ("profile.max_input_len", profile.max_input_len, 100, WINDOW_FRAMES),
        ("profile.max_new_tokens", profile.max_new_tokens, 1, text_ctx - LONGEST_PROMPT),
        ("profile.end_anchor", profile.end_anchor, 0, positions),
        ("profile.margin_frames", profile.margin_frames, 0, WINDOW_FRAMES),
        ("kv_cache.tokens_per_page", composition.kv_cache.tokens_per_page, 1, text_ctx),
        ("profile.kv_cache_free_gpu_memory_fraction", profile.kv_cache_free_gpu_memory_fraction, 0.001, 1),
        ("profile.cross_kv_cache_fraction", profile.cross_kv_cache_fraction, 0.001, 0.999),
        ("validation.repeats", composition.validation.repeats, 1, 1000),
        ("validation.min_clips", composition.validation.min_clips, 0, 1_000_000),
    ]
    problems = [
        f"{key}={got}: must be {low} to {high}" for key, got, low, high in limits if not low <= got <= high
    ]
    if profile.max_input_len % 2 or profile.margin_frames % 2:
        problems.append("profile.max_input_len and profile.margin_frames must be even: they count mel frames "
                        "(100 per second), and the encoder halves them")
    return problems
