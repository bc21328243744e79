"""The Python session: what the engines of each version are given, the end anchor, and the answers that come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.backends.tensorrt_llm import runtime
from tests.backends.tensorrt_llm.making import declared
from whisper_factory.backends import tensorrt_llm
from whisper_factory.backends.engines import GeneratingEngine
from whisper_factory.backends.tensorrt_llm import session
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.whisper.logmel import log_mel

PROMPTS = np.asarray([[50258, 50362], [50258, 50362]], np.int64)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def loaded(spec: EngineSpec) -> tuple[GeneratingEngine, runtime.Record]:
        spec = tensorrt_llm.settle(spec)
        record = runtime.running(monkeypatch, tmp_path, spec)
        return tensorrt_llm.load(runtime.engine_directory(tmp_path / "engine", spec)), record

    return loaded


def noise(frames: int, seconds: float = 4.0) -> NDArray[np.float32]:
    """Two windows of noise [2, 80, frames]."""
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((2, int(16_000 * seconds))).astype(np.float32)
    return np.stack([log_mel(window, 80, frames) for window in audio])


@pytest.mark.parametrize(("version", "features", "length"), [
    ("0.11.0", "x", 1500), ("0.12.0", "x", 1500), ("0.13.0", "input_features", 3000),
    ("0.14.0", "input_features", 3000)])
def test_up_to_014_the_encoder_gets_3000_frames(load, version, features, length) -> None:  # type: ignore[no-untyped-def]
    """Whatever is asked, and the same as if it had been asked for 3000."""
    engine, record = load(declared(version))
    assert isinstance(engine, session.SessionEngine)
    assert record.encoded == []  # nothing to append
    assert engine.generate(noise(750), PROMPTS, 64, 1) == [[11, 12, 13]] * 2
    (given,) = record.encoded
    assert list(given) == [features, "input_lengths"]
    assert given["input_lengths"].tolist() == [length, length]
    assert torch.equal(given[features], torch.from_numpy(noise(3000)).to(torch.float16))
    assert record.setups == [{"batch": 2, "prompt": 2, "new": 64, "beams": 1, "positions": 1500}]
    decoded = record.decoded[0]
    assert decoded["encoder_output"].shape == (2, 1500, 128)
    assert decoded["cross_attention_mask"].shape == (2, 1, 1500)


@pytest.mark.parametrize("version", ["0.15.0", "0.17.0", "1.3.0rc3"])
def test_from_015_a_short_window_gets_its_anchor(load, version: str) -> None:  # type: ignore[no-untyped-def]
    """The last rows of what this encoder makes of 30 s of silence, which is computed once."""
    engine, record = load(declared(version))
    (silence,) = record.encoded
    assert silence["input_features"].shape == (1, 80, 3000)
    assert set(silence["input_features"].unique().tolist()) == {-1.5}
    for _ in range(2):
        assert engine.generate(noise(850), PROMPTS, 10, 1) == [[11, 12, 13]] * 2
    _, given, _ = record.encoded
    assert list(given) == ["input_features", "input_lengths", "position_ids"]
    assert given["input_features"].shape == (2, 80, 850)
    assert given["input_lengths"].tolist() == [850, 850]
    assert given["position_ids"].tolist() == [list(range(425))] * 2
    decoded = record.decoded[0]
    states = decoded["encoder_output"]
    assert states.shape == (2, 475, 128)
    assert states.is_contiguous()
    assert torch.equal(states[:, :425, 0], torch.arange(425, dtype=torch.float16).expand(2, -1))
    anchor = (torch.arange(1450, 1500) + runtime.SILENT).to(torch.float16)
    assert torch.equal(states[:, 425:, 5], anchor.expand(2, -1))
    assert decoded["encoder_input_lengths"].tolist() == [475, 475]
    assert decoded["cross_attention_mask"].shape == (2, 12, 475)
    assert record.setups[0]["positions"] == 475


def test_a_whole_window_needs_no_anchor(load) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared("0.15.0", profile={"max_input_len": 3000, "margin_frames": 0}))
    engine.generate(noise(3000), PROMPTS, 10, 1)
    assert record.decoded[0]["encoder_output"].shape == (2, 1500, 128)
    engine.generate(noise(1000), PROMPTS, 10, 1)  # under nopad
    assert record.decoded[1]["encoder_output"].shape == (2, 550, 128)


def test_an_anchor_of_no_rows(load) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared("0.15.0", profile={"end_anchor": 0}))
    assert record.encoded == []
    engine.generate(noise(850), PROMPTS, 10, 1)
    assert record.decoded[0]["encoder_output"].shape == (2, 425, 128)


@pytest.mark.parametrize(("version", "cache"), [
    ("0.12.0", {"paged_kv_cache": False}), ("0.13.0", {"kv_cache_type": "continuous"}),
    ("1.0.0", {"kv_cache_type": "continuous"})])
def test_the_decoder_is_told_what_it_is(load, version: str, cache: dict[str, Any]) -> None:  # type: ignore[no-untyped-def]
    _, record = load(declared(version))
    assert record.config == {
        "max_batch_size": 2, "max_beam_width": 3, "vocab_size": 51864, "num_layers": 2, "num_heads": 2,
        "num_kv_heads": 2, "hidden_size": 128, "gpt_attention_plugin": True, "remove_input_padding": False,
        "cross_attention": True, "has_position_embedding": True, "has_token_type_embedding": False,
        "dtype": "float16", **cache}
    assert record.log_level == "error"


def test_every_tensor_of_the_decoder_is_int32(load) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared())
    engine.generate(noise(3000), PROMPTS, 64, 3)
    (decoded,) = record.decoded
    assert decoded["prompts"].tolist() == PROMPTS.tolist()
    assert decoded["lengths"].tolist() == [2, 2]
    for name in ("prompts", "lengths", "encoder_input_lengths", "cross_attention_mask"):
        assert decoded[name].dtype == torch.int32
    assert decoded["cross_attention_mask"].min() == 1
    assert decoded["encoder_output"].dtype == torch.float16
    assert decoded["sampling"] == {"end_id": 50256, "pad_id": 50256, "num_beams": 3}


@pytest.mark.parametrize(("answer", "heard"), [
    ([11, 12, 13], [11, 12, 13]), ([], []), ([50256, 5], []), ([7, 50256, 9], [7]), (list(range(1, 65)),) * 2])
def test_answers_end_at_the_end(load, answer: list[int], heard: list[int]) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared())
    record.answer = answer
    assert engine.generate(noise(3000), PROMPTS, 64, 1) == [heard, heard]


def test_a_multilingual_model_ends_with_its_own_token(load) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared(multilingual=True))
    record.answer = [7, 50256, 50257, 9]
    assert engine.generate(noise(3000)[:1], PROMPTS[:1], 64, 1) == [[7, 50256]]
    assert record.decoded[0]["sampling"]["end_id"] == 50257


@pytest.mark.parametrize(("mel", "prompts", "new", "beams", "said"), [
    (np.zeros((3, 80, 3000)), np.zeros((3, 2)), 10, 1, "3 windows at once, this engine takes 1 to 2"),
    (np.zeros((1, 128, 3000)), PROMPTS[:1], 10, 1, r"this engine \(tiny.en\) takes \[batch, 80, frames\]"),
    (np.zeros((1, 80, 751)), PROMPTS[:1], 10, 1, "a window of 751 frames"),
    (np.zeros((1, 80, 3002)), PROMPTS[:1], 10, 1, "a window of 3002 frames"),
    (np.zeros((1, 80, 3000)), PROMPTS[:1], 67, 1, "69 tokens with the prompt, this engine holds 68"),
    (np.zeros((1, 80, 3000)), PROMPTS[:1], 10, 4, "num_beams=4: this engine takes 1 to 3"),
])
def test_what_the_engine_was_not_built_for(load, mel, prompts, new, beams, said) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared())
    with pytest.raises(UserError, match=said):
        engine.generate(mel.astype(np.float32), prompts.astype(np.int64), new, beams)
    assert record.encoded == []


def test_a_window_longer_than_the_engines(load) -> None:  # type: ignore[no-untyped-def]
    engine, _ = load(declared("0.15.0"))
    with pytest.raises(UserError, match="a window of 900 frames, this engine takes an even number from 2 to 850"):
        engine.generate(noise(900), PROMPTS, 10, 1)


def test_an_encoder_that_does_not_run(load) -> None:  # type: ignore[no-untyped-def]
    engine, record = load(declared())
    record.runs = False
    with pytest.raises(EnvironmentFault, match="could not run the encoder on 2 windows of 3000 frames"):
        engine.generate(noise(3000), PROMPTS, 10, 1)


def test_it_is_an_engine_that_generates(load) -> None:  # type: ignore[no-untyped-def]
    engine, _ = load(declared())
    assert isinstance(engine, GeneratingEngine)
    assert engine.threads == 1
    assert engine.spec == replace(tensorrt_llm.settle(declared()))
