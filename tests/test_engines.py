"""Whole engines on real weights: against openai-whisper, multilingual base, and the routes weights can take."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
import whisper

from tests.backends.onnxruntime.reference import openai_model
from tests.conftest import Command
from tests.real_weights import TINY_EN, packaged
from tests.whisper.readers.test_huggingface import config as huggingface_config
from tests.whisper.readers.test_huggingface import hf_name
from whisper_factory import clips
from whisper_factory.whisper import readers
from whisper_factory.whisper.audio import read_audio


def build(factory: Command, tmp_path: Path, *overrides: str) -> Path:
    done = factory("quiet=true", "validation=none", *overrides)
    assert done.returncode == 0, done.stderr
    return tmp_path / done.stdout.strip()


def heard(python: Command, engine: Path, *arguments: object) -> list[dict[str, object]]:
    out = engine.parent / "heard.json"
    done = python("whisper_factory.run", "--engine_dir", engine, "--output_json", out, *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    files: list[dict[str, object]] = report["files"]
    return files


def test_tiny_en_int8_hears_what_openai_whisper_hears(factory: Command, python: Command, tmp_path: Path) -> None:
    """At 3000 frames, against OpenAI's own code and float32 weights: the same transcript on 11 of 12 clips."""
    quick = clips.bundled("quick")
    engine = build(factory, tmp_path, "model=tiny.en", "precision=int8", "profile.max_input_len=3000",
                   "profile.padding_strategy=max")
    ours = [entry["text"] for entry in heard(python, engine, "--input_file", *(clip.path for clip in quick))]
    reference = build(factory, tmp_path, "model=tiny.en", "precision=float32", "stop_after=convert")
    model = openai_model(reference / "checkpoint")
    options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False)
    audio = [whisper.pad_or_trim(torch.from_numpy(read_audio(clip.path))) for clip in quick]
    theirs = [found.text for found in whisper.decode(model, whisper.log_mel_spectrogram(torch.stack(audio)), options)]
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    assert same >= 11, list(zip(ours, theirs, strict=True))


def test_base_is_multilingual_and_hears_english(factory: Command, python: Command, tmp_path: Path) -> None:
    engine = build(factory, tmp_path, "model=base", "precision=int8")
    sample = clips.bundled("quick")[0]
    for language in ([], ["--language", "en"], ["--language", "English", "--task", "transcribe"]):
        (entry,) = heard(python, engine, "--input_file", sample.path, *language)
        assert entry["language"] == "en"
        assert "train to the coast" in str(entry["text"])


@pytest.fixture(scope="module")
def tiny_en() -> readers.Weights:
    return readers.read(packaged(TINY_EN).parent, "ctranslate2")


def test_one_model_by_three_routes_is_one_checkpoint(
    tiny_en: readers.Weights, factory: Command, tmp_path: Path
) -> None:
    """tiny.en from the package, as OpenAI's .pt, and as a Hugging Face directory: equal to the byte."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in tiny_en.tensors.items()}
    torch.save({"dims": asdict(tiny_en.dimensions), "model_state_dict": tensors}, tmp_path / "tiny.en.pt")
    folder = tmp_path / "fine-tuned"
    folder.mkdir()
    d = tiny_en.dimensions
    changes = {"d_model": d.n_text_state, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6,
               "decoder_attention_heads": 6, "vocab_size": d.n_vocab, "encoder_ffn_dim": 4 * d.n_text_state,
               "decoder_ffn_dim": 4 * d.n_text_state}
    (folder / "config.json").write_text(json.dumps(huggingface_config() | changes))
    named = {f"model.{hf_name(name)}": tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(named, folder / "model.safetensors")
    routes = (["weights=package"], ["weights=path", f"weights.path={tmp_path / 'tiny.en.pt'}"],
              ["weights=huggingface", f"weights.path={folder}"])
    made = [build(factory, tmp_path, "model=tiny.en", "stop_after=convert", *route) for route in routes]
    assert len({directory.name for directory in made}) == 3  # three inputs, three compositions
    for name in ("model.safetensors", "config.json", "vocabulary.tiktoken"):
        assert len({(directory / "checkpoint" / name).read_bytes() for directory in made}) == 1, name


def test_turning_the_end_anchor_off_misses_the_gate(factory: Command, tmp_path: Path) -> None:
    """A bare 7.5 s window loops: validation must notice, in three clips already, or it guards nothing."""
    (tmp_path / "three.jsonl").write_text("".join(
        json.dumps({"audio": str(clip.path), "text": clip.text}) + "\n" for clip in clips.bundled("quick")[:3]))
    done = factory("model=tiny.en", "profile=duplex_lowmem", "profile.end_anchor=0", "profile.margin_frames=0",
                   f"validation.clips='{tmp_path}/three.jsonl'", "validation.min_clips=3", "validation.repeats=1")
    assert done.returncode == 3, done.stderr
    assert "token_agreement is" in done.stderr
    assert "runaways" in done.stdout
