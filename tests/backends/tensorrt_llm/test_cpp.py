"""The C++ runtime: what it is loaded with and given, by version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.tensorrt_llm import runtime
from tests.backends.tensorrt_llm.making import declared
from tests.backends.tensorrt_llm.test_session import PROMPTS, noise
from whisper_factory.backends import tensorrt_llm
from whisper_factory.backends.engines import GeneratingEngine
from whisper_factory.backends.tensorrt_llm import cpp
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError

FULL: dict[str, Any] = {"max_input_len": 3000, "margin_frames": 0}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def loaded(spec: EngineSpec) -> tuple[GeneratingEngine, runtime.Record]:
        spec = tensorrt_llm.settle(spec)
        record = runtime.running(monkeypatch, tmp_path, spec)
        return tensorrt_llm.load(runtime.engine_directory(tmp_path / "engine", spec), threads=2), record

    return loaded


@pytest.mark.parametrize(("version", "memory"), [
    ("0.13.0", {}), ("0.14.0", {}), ("0.15.0", {"cross_kv_cache_fraction": 0.5}),
    ("1.3.0rc3", {"cross_kv_cache_fraction": 0.5})])
def test_what_it_is_loaded_with(load, tmp_path: Path, version, memory) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared(version, "paged", profile=FULL))
    assert isinstance(engine, cpp.CppEngine)
    assert engine.threads == 2
    assert record.runner == {
        "engine_dir": str(tmp_path / "engine"), "is_enc_dec": True, "max_batch_size": 2, "max_input_len": 3000,
        "max_output_len": 64, "max_beam_width": 3, "kv_cache_free_gpu_memory_fraction": 0.25, **memory}


@pytest.mark.parametrize(("spec", "asked", "frames"), [
    (declared("0.13.0", "paged"), 750, 3000),  # the encoder takes no other
    (declared("0.17.0", "paged", profile=FULL), 1000, 3000),  # it would loop without an anchor
    (declared("0.17.0", "paged", allow_unanchored=True), 850, 850),
])
def test_what_it_is_given(load, spec: EngineSpec, asked: int, frames: int) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(spec)
    assert engine.generate(noise(asked), PROMPTS, 20, 2) == [[11, 12, 13]] * 2
    (given,) = record.generated
    features = given.pop("encoder_input_features")
    assert torch.equal(features, torch.from_numpy(noise(frames)).to(torch.float16).transpose(1, 2))
    assert features.is_contiguous()
    assert features.shape == (2, frames, 80)
    lengths, prompts = given.pop("encoder_output_lengths"), given.pop("batch_input_ids")
    assert (lengths.tolist(), lengths.dtype) == ([frames // 2] * 2, torch.int32)
    assert (prompts.tolist(), prompts.dtype) == (PROMPTS.tolist(), torch.int32)
    assert given == {"max_new_tokens": 20, "end_id": 50256, "pad_id": 50256, "num_beams": 2,
                     "output_sequence_lengths": True, "return_dict": True}


def test_what_the_engine_was_not_built_for(load) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared("0.13.0", "paged"))
    for mel, new, said in ((np.zeros((3, 80, 3000)), 10, "3 windows at once"),
                           (np.zeros((2, 80, 3000)), 99, "101 tokens with the prompt")):
        with pytest.raises(UserError, match=said):
            engine.generate(mel.astype(np.float32), PROMPTS, new, 1)
    assert record.generated == []
