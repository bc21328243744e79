"""What this backend cannot build, and what a user should know before anything is built. Pure: no file, no library."""

from __future__ import annotations

from dataclasses import replace

from whisper_factory.backends.tensorrt_llm import versions
from whisper_factory.backends.tensorrt_llm.families import family
from whisper_factory.backends.tensorrt_llm.versions import Release
from whisper_factory.engine_spec import KV_MODES, EngineSpec, KVMode, Target
from whisper_factory.errors import UserError, choices
from whisper_factory.whisper.dimensions import WINDOW_FRAMES

PRECISIONS = {"float16": 0, "int8": 8, "int4": 4}  # name -> bits
PACKED_MULTIPLE = 64  # rows of a tile in the packed layouts
JETSONS = ("7.2", "8.7")  # compute capabilities that only Jetsons have: Xavier, Orin
FULL_WINDOW = "profile.max_input_len=3000"


def target_of(spec: EngineSpec) -> Target:
    """The GPU the engine is for.

    Raises:
        UserError: none was named.
    """
    if spec.target is None:
        raise UserError("backend 'tensorrt_llm' builds for one kind of GPU, and this device names none; choose a "
                        "device with a compute capability: device=jetson_orin_nano_8gb, say (every device but cpu)")
    return spec.target


def release_of(spec: EngineSpec) -> Release:
    """The version of TensorRT-LLM that the engine is for.

    Raises:
        UserError: no GPU was named, or a version that is not known.
    """
    return versions.parse(target_of(spec).version)


def packs(spec: EngineSpec) -> bool:
    """Whether the checkpoint holds packed integers: the precision has some, and the GPU's layout is known here."""
    target = target_of(spec)
    return bool(spec.precision.bits) and family(target.compute_capability, release_of(spec)) is not None


def kv_modes(spec: EngineSpec) -> tuple[KVMode, ...]:
    """Usable modes, best first: up to 0.12 Whisper runs in the Python session, which does not load a paged engine."""
    if spec.target is None:
        return KV_MODES
    return ("paged", "contiguous") if release_of(spec).at_least(0, 13) else ("contiguous",)


def full_window(spec: EngineSpec) -> bool:
    """Whether the encoder must be given 3000 frames, whatever the profile accepts.

    Up to 0.14 it is built for nothing else. Later, the C++ runtime (paged) has no place for the end anchor, without
    which a shorter window loops.
    """
    if not release_of(spec).at_least(0, 15):
        return True
    return spec.kv_cache.mode == "paged" and not target_of(spec).allow_unanchored


def settle(spec: EngineSpec) -> EngineSpec:
    """The engine that is made of a declaration: its window as long as the encoder needs it, its anchor if it can be.

    Raises:
        UserError: a version that is not known.
    """
    if spec.target is None:
        return spec
    profile = spec.profile
    if full_window(spec):
        profile = replace(profile, margin_frames=WINDOW_FRAMES, end_anchor=0, padding_strategy="max")
    elif spec.kv_cache.mode == "paged":
        profile = replace(profile, end_anchor=0)
    return replace(spec, profile=profile, target=replace(spec.target, version=release_of(spec).text))


def check(spec: EngineSpec) -> None:
    """Raise UserError for a combination that cannot be built."""
    target, release = target_of(spec), release_of(spec)
    _check_precision(spec)
    _check_dimensions(spec)
    if spec.kv_cache.mode not in kv_modes(spec):
        raise UserError(f"kv_cache={spec.kv_cache.mode}: TensorRT-LLM {release.text} does not load a Whisper engine "
                        f"with it (upstream issue 1930); use kv_cache=contiguous, or trtllm_version=0.13.0 or later")
    if spec.kv_cache.max_pages:
        raise UserError(f"kv_cache.max_pages={spec.kv_cache.max_pages} is not for TensorRT-LLM, whose pool is a part "
                        f"of the GPU's memory: leave it out, and set profile.kv_cache_free_gpu_memory_fraction")
    short = spec.window_frames < WINDOW_FRAMES
    if release.at_least(0, 15) and spec.kv_cache.mode == "paged" and short and not target.allow_unanchored:
        raise UserError(f"kv_cache=paged runs in TensorRT-LLM's C++ runtime, which has no place for the end anchor; "
                        f"without it a window of {spec.window_frames} frames loops; use kv_cache=contiguous, or "
                        f"{FULL_WINDOW}, or accept it with backend.allow_unanchored=true")
    for name in ("kv_cache_free_gpu_memory_fraction", "cross_kv_cache_fraction"):
        fraction = getattr(target, name)
        if not 0 < fraction <= 1:
            raise UserError(f"profile.{name}={fraction} is not a fraction; choices: more than 0, at most 1")


def _check_precision(spec: EngineSpec) -> None:
    name, bits = spec.precision.name, spec.precision.bits
    if spec.precision.keep or spec.precision.max_wer_delta is not None:
        asked = "precision.keep" if spec.precision.keep else "precision.max_wer_delta"
        raise UserError(f"{asked}: TensorRT-LLM's quantisation config names one algorithm for all layers of a Whisper "
                        "engine, and so has no layers that keep 8 bits; use precision=int8 or int4, or "
                        "backend=onnxruntime or tensorrt")
    if spec.precision.group_size:
        raise UserError(f"precision={name}: TensorRT-LLM's weight-only kernels (W4A16) take one scale an output "
                        f"channel; scales for groups belong to its AWQ and GPTQ formats and their other kernels, which "
                        f"this backend does not write; use precision=int4, or backend=onnxruntime or tensorrt")
    if PRECISIONS.get(name) != bits or spec.precision.dtype != "float16":
        raise UserError(f"backend 'tensorrt_llm' has no precision '{name}' of {bits} bits over "
                        f"{spec.precision.dtype}; {choices(name, PRECISIONS)} (float32 weights are cast to float16)")


def _check_dimensions(spec: EngineSpec) -> None:
    sizes, packed = spec.dimensions, packs(spec)
    if sizes.n_audio_state != sizes.n_text_state:
        raise UserError(f"model '{spec.model}': n_audio_state {sizes.n_audio_state} is not n_text_state "
                        f"{sizes.n_text_state}; Whisper's cross-attention needs them equal")
    if 2 * sizes.n_audio_ctx != WINDOW_FRAMES:
        raise UserError(f"model '{spec.model}': n_audio_ctx {sizes.n_audio_ctx} is not {WINDOW_FRAMES // 2}, half of "
                        f"Whisper's window of {WINDOW_FRAMES} frames")
    for stack, state, heads in (("audio", sizes.n_audio_state, sizes.n_audio_head),
                                ("text", sizes.n_text_state, sizes.n_text_head)):
        if state % heads:
            raise UserError(f"model '{spec.model}': {heads} heads do not divide n_{stack}_state {state}")
        if packed and state % PACKED_MULTIPLE:
            raise UserError(f"model '{spec.model}': n_{stack}_state {state} is not a multiple of {PACKED_MULTIPLE}, "
                            f"which the packed {spec.precision.name} layout needs; use precision=float16")


def notes(spec: EngineSpec) -> list[str]:
    """Lines for the plan."""
    target, release = target_of(spec), release_of(spec)
    return [*_window_notes(spec, target, release), *_version_notes(spec, target, release),
            "trtllm-build and the runtimes are driven as documented, but were never run on a GPU by this project; "
            "the packed weights are what is proven"]


def _window_notes(spec: EngineSpec, target: Target, release: Release) -> list[str]:
    asked = spec.profile.max_input_len
    if not release.at_least(0, 15):
        if asked == WINDOW_FRAMES:
            return []
        return [f"the encoder of TensorRT-LLM {release.text} is built for {WINDOW_FRAMES} frames and nothing else: "
                f"max_input_len={asked} bounds the audio that is accepted; it saves no encoder memory and no "
                f"cross-attention memory (from 0.15 it does)"]
    if spec.kv_cache.mode == "paged" and target.allow_unanchored and spec.window_frames < WINDOW_FRAMES:
        return [f"allow_unanchored: a window of {spec.window_frames} frames runs without its end anchor, and may "
                f"loop; validation says how often"]
    return []


def _version_notes(spec: EngineSpec, target: Target, release: Release) -> list[str]:
    found = []
    jetson = target.compute_capability in JETSONS or target.device.startswith("jetson")
    if jetson and release.at_least(0, 13):
        found.append(f"warning: {target.device} is a Jetson, for which TensorRT-LLM 0.12 was the last release: nothing "
                     f"says that {release.text} can be installed on it (trtllm_version={versions.DEFAULT})")
    _, recorded = versions.options(release)
    if not versions.same(recorded, release.text):
        found.append(f"trtllm-build's options of {release.text} were not recorded: those of {recorded} are used")
    if not release.at_least(0, 12):
        found.append(f"the build commands of {release.text} are inferred from 0.12's")
    if spec.precision.bits and not packs(spec):
        found.append(f"the packed {spec.precision.name} layout of compute capability {target.compute_capability} in "
                     f"TensorRT-LLM {release.text} is not known here: the checkpoint stays float16, and trtllm-build "
                     f"will quantise it")
    return found
