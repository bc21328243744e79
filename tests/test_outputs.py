from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.compositions import composition, tiny_en
from whisper_factory import outputs, plan, schema
from whisper_factory.plan import Plan
from whisper_factory.store import Finished, Store


def produce(tmp_path: Path, content: bytes = b"weights", **changes: object) -> tuple[Plan, dict[str, Finished]]:
    """A plan whose steps were "run" by writing one file each."""
    return run(plan.make(tiny_en(outputs=str(tmp_path / "outputs"), **changes), lambda step, key: False), tmp_path,
               content)


def run(made: Plan, tmp_path: Path, content: bytes = b"weights") -> tuple[Plan, dict[str, Finished]]:
    store, finished = Store(tmp_path / "store"), {}
    names = {"fetch": "weights/model.bin", "convert": "model.safetensors", "build": "encoder.onnx",
             "reference": "transcripts.json", "validate": "validation.json", "pack": "encoder/rank0.safetensors",
             "kit": "build.sh"}
    for step in made.steps:
        def work(out: Path, name: str = names[step.name]) -> None:
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(content)

        finished[step.name] = store.make(step.name, step.key, step.record, work, print)
    return made, finished


def test_written_once_it_is_current(tmp_path: Path) -> None:
    made, finished = produce(tmp_path)
    assert not outputs.is_current(made, finished)
    outputs.write(made, finished, "a: 1\n")
    assert outputs.is_current(made, finished)
    directory = made.directory
    assert (directory / "engine" / "encoder.onnx").samefile(finished["build"].path / "encoder.onnx")
    assert (directory / "config.yaml").read_text() == "a: 1\n"
    manifest = json.loads((directory / "manifest.json").read_text())
    assert set(manifest["outputs"]) == {"checkpoint/model.safetensors", "engine/encoder.onnx", "validation.json"}
    assert manifest["inputs"]["weights/model.bin"]["from"]
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]


def test_a_lost_or_short_file_makes_it_stale_and_it_is_mended(tmp_path: Path) -> None:
    made, finished = produce(tmp_path)
    outputs.write(made, finished, "")
    (made.directory / "engine" / "encoder.onnx").unlink()
    assert not outputs.is_current(made, finished)
    outputs.write(made, finished, "")
    assert outputs.is_current(made, finished)
    (made.directory / "config.yaml").unlink()
    assert not outputs.is_current(made, finished)
    outputs.write(made, finished, "")
    (made.directory / "validation.json").unlink()
    (made.directory / "validation.json").write_text("short")
    assert not outputs.is_current(made, finished)


def test_a_longer_run_supersedes_a_shorter_one_and_not_the_reverse(tmp_path: Path) -> None:
    short, finished_short = produce(tmp_path, stop_after="convert")
    outputs.write(short, finished_short, "")
    assert not (short.directory / "engine").exists()
    whole, finished = produce(tmp_path)
    assert whole.directory == short.directory
    assert not outputs.is_current(whole, finished)
    outputs.write(whole, finished, "")
    assert outputs.is_current(whole, finished)
    assert outputs.is_current(short, finished_short)


def test_an_engine_of_other_keys_does_not_stay_beside_a_new_checkpoint(tmp_path: Path) -> None:
    whole, finished = produce(tmp_path)
    outputs.write(whole, finished, "")
    short, finished_short = produce(tmp_path, stop_after="convert")
    outputs.write(short, finished_short, "")  # as when the converter's version has changed
    assert not (short.directory / "engine").exists()
    assert not (short.directory / "validation.json").exists()


def test_the_plan_on_paper_says_what_the_plan_says(tmp_path: Path) -> None:
    made = plan.make(tiny_en(outputs=str(tmp_path / "outputs")), lambda step, key: False, ["mind the gap"])
    outputs.write(*run(made, tmp_path), "")
    assert json.loads((made.directory / "plan.json").read_text(encoding="utf-8"))["notes"] == ["mind the gap"]


def kit(tmp_path: Path) -> tuple[Plan, dict[str, Finished]]:
    made = composition("profile=duplex_lowmem", "model=tiny.en", "backend=tensorrt_llm", "device=jetson_orin_nano_8gb",
                       f"outputs={tmp_path / 'outputs'}")
    schema.settle(made)
    return run(plan.make(made, lambda step, key: False), tmp_path)


def test_a_kit_is_one_file_for_the_device_with_the_packed_checkpoint(tmp_path: Path) -> None:
    made, finished = kit(tmp_path)
    outputs.write(made, finished, "a: 1\n")
    assert outputs.is_current(made, finished)
    with tarfile.open(made.directory / "kit.tar") as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert set(members) == {f"kit/{name}" for name in (
            "build.sh", "checkpoint/encoder/rank0.safetensors", "config.yaml", "manifest.json", "plan.json",
            "validation.json")}
        assert members["kit/build.sh"].mode == 0o755
        read = tar.extractfile("kit/checkpoint/encoder/rank0.safetensors")
        assert read is not None
        assert read.read() == b"weights"
    assert not (made.directory / "checkpoint" / "model.safetensors").exists()  # the canonical one is not for the device


def test_the_same_kit_has_the_same_bytes(tmp_path: Path) -> None:
    packed = []
    for folder in ("a", "b"):
        made, finished = kit(tmp_path / folder)
        outputs.write(made, finished, "")
        with tarfile.open(made.directory / "kit.tar") as tar:
            packed.append([(member.name, member.mtime, member.uid, member.mode) for member in tar])
    assert packed[0] == packed[1]


def test_a_lost_kit_is_packed_again(tmp_path: Path) -> None:
    made, finished = kit(tmp_path)
    outputs.write(made, finished, "")
    (made.directory / "kit.tar").unlink()
    assert not outputs.is_current(made, finished)
    outputs.write(made, finished, "")
    assert outputs.is_current(made, finished)


def test_an_engine_that_build_sh_made_there_is_left_alone(tmp_path: Path) -> None:
    made, finished = kit(tmp_path)
    outputs.write(made, finished, "")
    (made.directory / "engine").mkdir()
    outputs.write(made, finished, "")
    assert (made.directory / "engine").is_dir()


def test_the_traces_of_a_failure_go_once_it_works(tmp_path: Path) -> None:
    made, finished = kit(tmp_path)
    (made.directory / outputs.FAILURES).mkdir(parents=True)
    outputs.write(made, finished, "")
    assert not (made.directory / outputs.FAILURES).exists()
