"""convert with a calibration, from composition to checkpoint, on the model of random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.compositions import composition
from tests.tiny_model import tiny_weights
from whisper_factory import factory, plan, schema
from whisper_factory.calibration import clips
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.schema import Composition
from whisper_factory.whisper.checkpoint import Checkpoint
from whisper_factory.whisper.tensors import is_quantized


def declared(folder: Path, *overrides: str) -> Composition:
    made = composition("model=debug", "precision=int4", "validation=none", "stop_after=convert",
                       f"store.path={folder / 'store'}", f"outputs={folder / 'outputs'}", *overrides)
    schema.check(made)
    schema.settle(made)
    return made


def few(folder: Path, count: int = clips.FEWEST) -> Path:
    """A manifest of some bundled clips."""
    lines = [json.dumps({"audio": str(one.path), "text": one.text}) for one in clips.bundled()[:count]]
    folder.mkdir(exist_ok=True)
    (folder / "few.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "few.jsonl"


@cache
def keys(*overrides: str) -> dict[str, str]:
    made = composition("model=tiny.en", "precision=int4", *overrides)
    schema.check(made)
    planned = plan.make(made, lambda step, key: False)
    return {**{step.name: step.key for step in planned.steps}, "composition": planned.key}


def test_the_checkpoint_has_the_same_layout_other_integers_and_says_how(tmp_path: Path) -> None:
    listed = few(tmp_path)
    plain = factory.produce(declared(tmp_path), "").finished["convert"].path
    outcome = factory.produce(declared(tmp_path, "calibration=gptq", f"calibration.clips={listed}"), "")
    made = outcome.finished["convert"].path
    exact, found = Checkpoint.open(plain), Checkpoint.open(made)
    assert {name: (array.dtype, array.shape) for name, array in exact.raw.items()} == {
        name: (array.dtype, array.shape) for name, array in found.raw.items()}
    for name in exact.raw:
        linear = is_quantized(name) or name.endswith(".scale") or is_quantized(name.replace(".bias", ".weight"))
        assert np.array_equal(exact.raw[name], found.raw[name]) != linear, name
    speech = clips.from_manifest(listed)[0]
    about = json.loads((made / "config.json").read_text(encoding="utf-8"))["calibration"]
    assert about["method"] == "gptq"
    assert about["clips"] == clips.digest(speech)
    assert about["seed"] == 0
    assert about["names"] == [one.name for one in speech]
    manifest = json.loads((outcome.plan.directory / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["calibration"] == about
    assert "calibration" not in json.loads((plain / "config.json").read_text(encoding="utf-8"))


def test_groups_are_calibrated_and_layers_that_keep_8_bits_are_rounded_as_they_are(tmp_path: Path) -> None:
    how = ("precision=int4_g32", "precision.keep=[encoder.blocks.0.mlp.*]")
    plain = factory.produce(declared(tmp_path, *how), "").finished["convert"].path
    made = factory.produce(declared(tmp_path, *how, "calibration=gptq", f"calibration.clips={few(tmp_path)}"), "")
    exact, found = Checkpoint.open(plain), Checkpoint.open(made.finished["convert"].path)
    assert {name: (array.dtype, array.shape) for name, array in exact.raw.items()} == {
        name: (array.dtype, array.shape) for name, array in found.raw.items()}
    for name in exact.raw:
        linear = is_quantized(name) or name.endswith(".scale") or is_quantized(name.replace(".bias", ".weight"))
        kept = name.startswith("encoder.blocks.0.mlp.")
        assert np.array_equal(exact.raw[name], found.raw[name]) != (linear and not kept), name


def test_the_same_bytes_again(tmp_path: Path) -> None:
    listed = few(tmp_path)
    made = [factory.produce(declared(tmp_path / place, "calibration=gptq", f"calibration.clips={listed}"), "")
            for place in ("one", "other")]
    first, second = (outcome.finished["convert"].record["outputs"] for outcome in made)
    assert first == second


def test_keys_without_a_calibration_are_those_of_before_and_with_one_follow_its_clips(tmp_path: Path) -> None:
    assert keys() == keys("calibration=none")
    gptq = keys("calibration=gptq")
    assert gptq["fetch"] == keys()["fetch"]
    for other in (keys(), keys("calibration=scale"), keys("calibration=gptq", "calibration.seed=1"),
                  keys("calibration=gptq", f"calibration.clips={few(tmp_path)}")):
        assert other["convert"] != gptq["convert"]
        assert other["composition"] != gptq["composition"]


def test_the_plan_names_the_method_the_clips_and_the_time() -> None:
    made = composition("model=tiny.en", "precision=int4", "calibration=gptq")
    planned = plan.make(made, lambda step, key: False)
    assert planned.steps[1].about == "canonical checkpoint, int4 by gptq on 128 clips, about 50 s on two cores"
    assert made.name == "tiny.en-int4-gptq-interactive-contiguous-onnxruntime"


@pytest.mark.parametrize(("overrides", "said"), [
    (["precision=int8", "calibration=gptq"], r"is for 4 bits, not for precision=int8; choices: precision=int4, "
                                             r"precision=int4_g32, precision=int4_g128, calibration=none"),
    (["calibration.method=awq"], r"calibration\.method: unknown 'awq'; .*none, scale, gptq"),
    (["calibration.clips=a.jsonl"], r"calibration\.clips goes with calibration=gptq or calibration=scale"),
    (["calibration=gptq", "calibration.seed=-1"], r"calibration\.seed=-1: must be 0 to"),
])
def test_what_cannot_be_meant(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        schema.check(composition("model=tiny.en", "precision=int4", *overrides))


def test_warnings_about_clips_are_notes_of_the_plan(tmp_path: Path) -> None:
    listed = few(tmp_path)
    with listed.open("a", encoding="utf-8") as lines:
        lines.write('\n{"audio": "nowhere.wav"}')
    made = composition("model=tiny.en", "precision=int4", "calibration=gptq", f"calibration.clips={listed}")
    notes = plan.make(made, lambda step, key: False).notes
    assert any(note.startswith("warning: calibration skips nowhere.wav: ") for note in notes)


def test_weights_that_are_not_finite_are_told_by_name(tmp_path: Path) -> None:
    from whisper_factory.calibration import worker
    from whisper_factory.whisper.readers import Weights

    weights = tiny_weights()
    damaged = {**weights.tensors, "encoder.ln_post.bias": np.full(128, np.nan, np.float16)}
    with pytest.raises(UserError, match=r"tensor encoder\.ln_post\.bias holds NaN or infinity"):
        worker.as_stored(Weights(weights.dimensions, damaged))


def test_a_child_that_dies_is_an_environment_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_factory.steps.child.CHILD",
                        "import sys; print('out of memory'); sys.exit(9)  # {path} {module}")
    made = declared(tmp_path, "calibration=gptq", f"calibration.clips={few(tmp_path)}")
    with pytest.raises(EnvironmentFault, match=r"the calibration failed \(exit code 9\): out of memory"):
        factory.produce(made, "")
