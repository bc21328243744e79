"""What can be declared, and which TensorRT it is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.backends.tensorrt.making import declared, gpu
from tests.tiny_model import tiny_dimensions
from whisper_factory.backends import tensorrt
from whisper_factory.engine_spec import KVCache, Precision
from whisper_factory.errors import UserError


@pytest.mark.parametrize(("changes", "said"), [
    ({"target": None}, "device=rtx_4090, say"),
    ({"kv_cache": KVCache("paged", 64)}, "kv_cache=paged: .* use kv_cache=contiguous"),
    ({"kv_cache": KVCache("contiguous", 64, 8)}, r"kv_cache\.max_pages=8"),
    ({"precision": Precision("int3", 3, "float16")}, "no precision 'int3' of 3 bits; .*choices: float32"),
    ({"dimensions": tiny_dimensions(n_audio_ctx=100)}, "n_audio_ctx 100"),
    ({"dimensions": tiny_dimensions(n_audio_state=48, n_text_state=48, n_audio_head=2, n_text_head=2)},
     "n_audio_state 48 is not a multiple of 128, by which .* 256 bytes"),
])
def test_what_cannot_be_built(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tensorrt.check(replace(declared(), **changes))


@pytest.mark.parametrize("capability", ["banana", "89", "8", "8.9.0", "sm_89", "0.0", "8.9\n"])
def test_what_is_no_compute_capability(capability: str) -> None:
    with pytest.raises(UserError, match=r"is not two numbers and a dot; choices: 7\.5, .*8\.9"):
        tensorrt.check(declared(capability=capability))


def test_what_can_be_built() -> None:
    for precision in ("float32", "float16", "int8", "int4"):
        tensorrt.check(declared(precision))


@pytest.mark.parametrize(("capability", "versions", "flavour"), [
    ("8.9", {}, "rtx"), ("8.9", {"rtx": "1", "full": "10"}, "rtx"), ("8.9", {"full": "10"}, "full"),
    ("8.7", {"rtx": "1"}, "full"), ("9.0", {"rtx": "1"}, "full"), ("12.0", {"rtx": "1"}, "rtx"),
])
def test_the_flavour(monkeypatch: pytest.MonkeyPatch, capability: str, versions: dict[str, str], flavour: str) -> None:
    gpu(monkeypatch, None, **versions)
    spec = declared(capability=capability)
    assert spec.target is not None
    assert spec.target.version == flavour
    assert tensorrt.settle(spec) == spec
    assert tensorrt.can_build(spec) == (flavour == "rtx" and "rtx" in versions)
    assert tensorrt.needs_kit(spec) != tensorrt.can_build(spec)
    assert not tensorrt.runs_here(spec)
    gpu(monkeypatch, capability, **{flavour: "1"})
    assert tensorrt.can_build(spec)
    assert tensorrt.runs_here(spec)


def test_notes_say_what_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, None, rtx="1")
    assert len(tensorrt.notes(declared())) == 1
    gpu(monkeypatch, None)
    assert any("on any x86-64 Linux machine, is not installed here; pip install 'whisper-factory[tensorrt]'" in line
               for line in tensorrt.notes(declared()))
    hopper = "\n".join(tensorrt.notes(declared(capability="9.0", device="h100_80gb")))
    assert "TensorRT for RTX does not serve compute capability 9.0 (h100_80gb; it serves 7.5, 8.0" in hopper
    assert "never tried" in hopper
