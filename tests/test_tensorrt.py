"""backend=tensorrt from the command line: an engine on a machine without a GPU, and a kit where none can be built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compositions import composition
from tests.conftest import Command
from tests.real_engine import duplex
from whisper_factory import clips, plan, schema
from whisper_factory.backends import tensorrt
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.transcribe import Transcriber

DUPLEX = ("backend=tensorrt", "profile=duplex_lowmem", "model=tiny.en", "device=rtx_4090")


@pytest.fixture
def six(tmp_path: Path) -> tuple[str, ...]:
    """Overrides for a validation that hears six clips, and their edge recordings."""
    (tmp_path / "six.jsonl").write_text("".join(
        json.dumps({"audio": str(clip.path), "text": clip.text}) + "\n" for clip in clips.bundled("quick")[:6]))
    return f"validation.clips='{tmp_path}/six.jsonl'", "validation.min_clips=6"


def test_on_a_laptop(factory: Command, python: Command, tmp_path: Path, six: tuple[str, ...]) -> None:
    """Built, validated by its graphs, and heard with the transcripts of the embedded engine of the same integers."""
    done = factory(*DUPLEX, *six)
    assert done.returncode == 0, done.stderr
    assert "evidence    graph: the very graphs that are compiled" in done.stdout
    (directory,) = (tmp_path / "outputs" / "tiny.en-int8-duplex_lowmem-contiguous-tensorrt").iterdir()
    validation = json.loads((directory / "validation.json").read_text(encoding="utf-8"))
    assert (validation["evidence"], validation["passed"]) == ("graph", True)
    assert {gate["name"] for gate in validation["gates"]} == {"token_agreement", "edge_token_agreement", "runaways"}
    embedded = Transcriber.load(duplex())
    quick = [read_audio(clip.path) for clip in clips.bundled("quick")[:6]]
    texts = [transcript.text for transcript in embedded.transcribe(quick)]
    heard = [row["heard"] for row in validation["clips"] if not row["edge"]]
    assert sum(one == other for one, other in zip(texts, heard, strict=True)) >= 5
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["built"]["stages"]["decoder"]["seconds"] > 0
    assert {"engine/encoder.engine", "engine/decoder.engine", "checkpoint/encoder.onnx"} <= manifest["outputs"].keys()
    assert not (directory / "build.sh").exists()
    run = python("whisper_factory.run", "--engine_dir", directory, "--input_file", clips.bundled("quick")[0].path)
    assert run.returncode == 4
    assert "built with TensorRT for RTX" in run.stderr
    assert "CUDA finds no GPU here; run it there" in run.stderr


def test_float32_graphs_give_the_embedded_engines_transcripts(factory: Command, tmp_path: Path) -> None:
    """Without rounding in the way, in every token."""
    made = factory("quiet=true", "stop_after=convert", *DUPLEX, "precision=float32")
    assert made.returncode == 0, made.stderr
    embedded = factory("quiet=true", "validation=none", "profile=duplex_lowmem", "model=tiny.en", "precision=float32")
    directory = tmp_path / made.stdout.strip()
    spec = tensorrt.settle(composition(*DUPLEX, "precision=float32", "kv_cache=contiguous").engine_spec())
    engine = tensorrt.stand_in(directory / "checkpoint", spec, tmp_path / "graphs", lambda line: None, tmp_path)
    quick = [read_audio(clip.path) for clip in clips.bundled("quick")[:3]]
    ours, theirs = (Transcriber.load(place).transcribe(quick) for place in (engine, tmp_path / embedded.stdout.strip()))
    assert [one.tokens for one in ours] == [other.tokens for other in theirs]


@pytest.mark.parametrize("device", ["jetson_orin_nano_8gb", "h100_80gb"])
def test_for_a_device_that_builds_its_own(factory: Command, tmp_path: Path, device: str) -> None:
    done = factory(*DUPLEX[:3], f"device={device}", "validation=none", "stop_after=convert")
    assert done.returncode == 0, done.stderr
    assert "TensorRT for RTX does not serve compute capability" in done.stderr
    (directory,) = (tmp_path / "outputs" / "tiny.en-int8-duplex_lowmem-contiguous-tensorrt").iterdir()
    assert {"build.sh", "requirements.txt", "runtime", "checkpoint", "kit.tar"} <= {
        file.name for file in directory.iterdir()}


def test_the_plan_and_its_keys() -> None:
    def keys(*overrides: str) -> dict[str, str]:
        made = composition(*DUPLEX, *overrides)
        schema.check(made)
        return {step.name: step.key for step in plan.make(made, lambda name, key: False, schema.settle(made)).steps}

    before = keys()
    assert list(before) == ["fetch", "convert", "pack", "build", "reference", "validate"]
    for change, same in (("device=rtx_3090", {"fetch", "convert", "pack", "reference"}),
                         ("profile.max_batch_size=2", {"fetch", "convert", "pack", "reference"}),
                         ("profile.max_new_tokens=32", {"fetch", "convert", "reference"}),
                         ("trtllm_version=0.13.0", set(before))):
        after = keys(change)
        assert {name for name in before if before[name] == after[name]} == same, change


def test_the_key_carries_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        made = composition(*DUPLEX)
        notes = schema.settle(made)
        return next(step.key for step in plan.make(made, lambda name, key: False, notes).steps if step.name == "build")

    before = key()
    monkeypatch.setattr("whisper_factory.backends.tensorrt.flavours.installed",
                        lambda flavour: "1.8.0.1" if flavour.name == "rtx" else None)
    assert key() != before


def test_without_a_device_one_is_asked_for(factory: Command) -> None:
    done = factory("backend=tensorrt", "model=tiny.en", "kv_cache=contiguous")
    assert done.returncode == 2
    assert "device=rtx_4090, say" in done.stderr
