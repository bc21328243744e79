"""What cannot be built, what the plan must say, and the window that a device will run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.backends.tensorrt_llm.making import declared
from whisper_factory.backends import onnxruntime, tensorrt_llm
from whisper_factory.backends.tensorrt_llm import limits
from whisper_factory.engine_spec import EngineSpec, Precision
from whisper_factory.errors import UserError

FULL: dict[str, Any] = {"max_input_len": 3000, "margin_frames": 0}


def refusal(spec: EngineSpec) -> str:
    with pytest.raises(UserError) as refused:
        tensorrt_llm.check(spec)
    said = str(refused.value)
    assert "\n" not in said
    return said


def test_a_gpu_must_be_named() -> None:
    nothing = replace(declared(), target=None)
    assert "device=jetson_orin_nano_8gb" in refusal(nothing)
    assert tensorrt_llm.kv_modes(nothing) == ("contiguous", "paged")
    assert tensorrt_llm.settle(nothing) == nothing


def test_versions_and_capabilities_that_are_none() -> None:
    assert "0.18.0 is not supported" in refusal(declared("0.18.0"))
    assert "0.11 to 0.17 and 1.x" in refusal(declared("0.21.0"))
    assert "is not a version" in refusal(declared("latest"))
    assert "compute capability 'orin' is not two numbers" in refusal(declared(capability="orin"))


@pytest.mark.parametrize("precision", [Precision("float32", 0, "float32"), Precision("int8", 4, "float16"),
                                       Precision("int8", 8, "float32"), Precision("fp8", 8, "float16")])
def test_precisions(precision: Precision) -> None:
    said = refusal(replace(declared(), precision=precision))
    assert precision.name in said
    assert "choices: float16, int8, int4" in said


def test_one_scale_an_output_channel_and_one_algorithm_for_all_layers() -> None:
    said = refusal(replace(declared(), precision=Precision("int4_g32", 4, "float16", 32)))
    assert "int4_g32: TensorRT-LLM's weight-only kernels (W4A16) take one scale an output channel" in said
    assert "use precision=int4, or backend=onnxruntime or tensorrt" in said
    mixed = refusal(replace(declared(), precision=Precision("int4", 4, "float16", keep=("encoder.blocks.0.mlp.0",))))
    assert "precision.keep" in mixed
    assert "use precision=int8" in mixed


@pytest.mark.parametrize(("changes", "said"), [
    ({"n_audio_state": 192, "n_audio_head": 3}, "n_audio_state 192 is not n_text_state 128"),
    ({"n_audio_ctx": 750}, "n_audio_ctx 750 is not 1500"),
    ({"n_text_head": 3}, "3 heads do not divide n_text_state 128"),
    ({"n_audio_state": 96, "n_text_state": 96}, "n_audio_state 96 is not a multiple of 64.*precision=float16"),
])
def test_dimensions(changes: dict[str, int], said: str) -> None:
    spec = declared()
    with pytest.raises(UserError, match=said):
        tensorrt_llm.check(replace(spec, dimensions=replace(spec.dimensions, **changes)))


def test_odd_sizes_are_no_matter_to_what_is_not_packed() -> None:
    for spec in (declared(precision="float16"), declared("0.17.0", capability="10.0")):
        tensorrt_llm.check(replace(spec, dimensions=replace(spec.dimensions, n_audio_state=96, n_text_state=96)))


def test_paged_does_not_load_up_to_012() -> None:
    for version in ("0.11.0", "0.12", "0.12.0.dev2024080600"):
        assert tensorrt_llm.kv_modes(declared(version)) == ("contiguous",)
        said = refusal(declared(version, "paged"))
        assert "upstream issue 1930" in said
        assert "kv_cache=contiguous" in said
    for version in ("0.13.0", "1.3.0rc3"):
        assert tensorrt_llm.kv_modes(declared(version)) == ("paged", "contiguous")
    tensorrt_llm.check(declared("0.13.0", "paged"))


def test_pages_are_not_counted_here() -> None:
    spec = declared("0.13.0", "paged")
    said = refusal(replace(spec, kv_cache=replace(spec.kv_cache, max_pages=3)))
    assert "kv_cache.max_pages=3 is not for TensorRT-LLM" in said
    assert "profile.kv_cache_free_gpu_memory_fraction" in said
    tensorrt_llm.check(replace(spec, kv_cache=replace(spec.kv_cache, max_pages=0)))  # as many as are needed


@pytest.mark.parametrize("version", ["0.15.0", "0.17.0", "1.0.0"])
def test_a_short_window_needs_its_anchor(version: str) -> None:
    said = refusal(declared(version, "paged"))
    assert "has no place for the end anchor" in said
    assert "kv_cache=contiguous" in said
    assert "backend.allow_unanchored=true" in said
    for usable in (declared(version, "contiguous"), declared(version, "paged", profile=FULL),
                   declared(version, "paged", allow_unanchored=True)):
        tensorrt_llm.check(usable)


@pytest.mark.parametrize("name", ["kv_cache_free_gpu_memory_fraction", "cross_kv_cache_fraction"])
def test_fractions(name: str) -> None:
    for wrong in (0.0, -0.1, 1.01):
        assert f"profile.{name}={wrong}" in refusal(declared(**{name: wrong}))
    tensorrt_llm.check(declared(**{name: 1.0}))


@pytest.mark.parametrize(("version", "kv_cache", "unanchored", "window", "anchor"), [
    ("0.11.0", "contiguous", False, 3000, 0),
    ("0.12.0", "contiguous", False, 3000, 0),
    ("0.14.0", "contiguous", False, 3000, 0),
    ("0.14.0", "paged", True, 3000, 0),
    ("0.15.0", "contiguous", False, 850, 50),
    ("1.0.0", "contiguous", True, 850, 50),
    ("0.15.0", "paged", True, 850, 0),
])
def test_the_window_that_the_device_will_run(
    version: str, kv_cache: str, unanchored: bool, window: int, anchor: int
) -> None:
    spec = declared(version, kv_cache, allow_unanchored=unanchored)
    settled = tensorrt_llm.settle(spec)
    assert tensorrt_llm.settle(settled) == settled
    preflight = tensorrt_llm.stand_in_spec(spec)
    assert preflight == tensorrt_llm.stand_in_spec(settled)
    onnxruntime.check(preflight)
    assert (preflight.backend, preflight.precision.name, preflight.target) == ("onnxruntime", "float32", None)
    for made in (settled, preflight):
        assert made.window_frames == window
        assert made.profile.end_anchor == anchor
        assert made.profile.max_input_len == 750
        assert made.encoder_frames(400, made.profile.padding_strategy) == window


def test_a_long_window_under_nopad_stays_whole_where_it_cannot_be_anchored() -> None:
    loose = {**FULL, "padding_strategy": "nopad"}
    for spec in (declared("0.12.0", profile=loose), declared("0.17.0", "paged", profile=loose)):
        assert tensorrt_llm.settle(spec).profile.padding_strategy == "max"
    assert tensorrt_llm.settle(declared("0.17.0", profile=loose)).profile.padding_strategy == "nopad"


@pytest.mark.parametrize(("spec", "said"), [
    (declared("0.12.0"), "max_input_len=750 bounds the audio that is accepted; it saves no encoder memory"),
    (declared("0.14.0"), "max_input_len=750 bounds the audio that is accepted"),
    (declared("0.13.0"), "is a Jetson, for which TensorRT-LLM 0.12 was the last release"),
    (declared("0.17.0", device="my_board", capability="7.2"), "my_board is a Jetson"),
    (declared("1.1.0"), "options of 1.1.0 were not recorded: those of 1.3.0rc3 are used"),
    (declared("0.12.1"), "options of 0.12.1 were not recorded: those of 0.12.0 are used"),
    (declared("0.11.0"), "are inferred from 0.12's"),
    (declared("0.16.0", capability="9.0"), "trtllm-build will quantise it"),
    (declared("0.12.0", capability="10.0", precision="int4"), "the packed int4 layout of compute capability 10.0"),
    (declared("0.15.0", "paged", allow_unanchored=True), "850 frames runs without its end anchor"),
])
def test_what_the_plan_says(spec: EngineSpec, said: str) -> None:
    assert any(said in note for note in tensorrt_llm.notes(spec))
    assert not any("\n" in note for note in tensorrt_llm.notes(spec))


def test_what_the_plan_need_not_say() -> None:
    plain = tensorrt_llm.notes(declared("0.12.0", profile=FULL, capability="8.9", device="rtx_4090"))
    assert len(plain) == 1  # that nothing was ever run on a GPU
    assert "never run on a GPU" in plain[0]
    dynamic = declared("0.15.0", capability="8.9", device="rtx_4090", precision="float16", allow_unanchored=True)
    assert tensorrt_llm.notes(dynamic) == plain


def test_the_checkpoint_stays_float16_where_the_layout_is_not_known() -> None:
    assert tensorrt_llm.checkpoint_precision(declared()).name == "int8"
    assert tensorrt_llm.checkpoint_precision(declared("0.16.0", capability="9.0")).name == "float16"
    assert limits.packs(declared(precision="int4"))
    assert not limits.packs(declared(precision="float16"))


def test_planning_imports_no_heavy_library() -> None:
    code = ("import sys\nfrom whisper_factory.backends import tensorrt_llm\n"
            "print(sorted({'numpy', 'torch', 'tensorrt_llm'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
