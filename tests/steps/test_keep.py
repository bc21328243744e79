"""int4_auto from composition to engine, on the model of random weights, which says one sentence whatever it hears."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.compositions import composition
from tests.steps.test_calibrating import few
from whisper_factory import backends, factory, memory, plan, report, schema
from whisper_factory.calibration import clips
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, GateMissed, UserError
from whisper_factory.keeping import choosing
from whisper_factory.planned_steps import PlannedStep
from whisper_factory.quantization import mixed
from whisper_factory.schema import Composition
from whisper_factory.steps import child
from whisper_factory.whisper.checkpoint import Checkpoint

CHOSEN = [f"encoder.blocks.0.attn.{part}" for part in ("query", "key", "value")] + ["decoder.blocks.1.mlp.2"]


def declared(folder: Path, *overrides: str) -> Composition:
    made = composition("model=debug", "precision=int4_auto", "profile=duplex_lowmem", f"store.path={folder / 'store'}",
                       f"outputs={folder / 'outputs'}", f"calibration.clips={few(folder)}", *overrides)
    schema.check(made)
    schema.settle(made)
    return made


def order() -> list[str]:
    return list(mixed.layers(composition("model=debug").engine_spec().dimensions))


def declared_by_name(folder: Path) -> Composition:
    made = composition("model=debug", "precision=int4_g32", "profile=duplex_lowmem", "validation=none",
                       f"precision.keep=[{','.join(CHOSEN)}]", f"store.path={folder / 'store'}",
                       f"outputs={folder / 'outputs'}")
    schema.check(made)
    schema.settle(made)
    return made


@cache
def planned(*overrides: str) -> dict[str, PlannedStep]:
    made = composition("model=tiny.en", *overrides)
    schema.check(made)
    return {step.name: step for step in plan.make(made, lambda step, key: False, schema.settle(made)).steps}


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A child that does not listen: what it is asked. Its answer keeps CHOSEN."""
    asked: list[dict[str, Any]] = []

    def answer(module: str, request: dict[str, Any], path: Path, *about: object) -> None:
        asked.append(request)
        found = {"wer": {"exact": 5.0, "none_kept": 9.0, "chosen": 5.5}, "clips": 8, "bytes": 1_230_000,
                 "order": [{"layers": CHOSEN[:3], "harm": 0.1, "bytes": 1}]}
        path.write_text(json.dumps({"kept": CHOSEN, **found}), encoding="utf-8")

    monkeypatch.setattr(child, "ask", answer)
    return asked


def test_the_whole_way_on_ones_own_clips(tmp_path: Path) -> None:
    outcome = factory.produce(declared(tmp_path), "")
    folder = outcome.plan.directory
    choice = json.loads((folder / "kept.json").read_text(encoding="utf-8"))
    assert choice["clips"] == clips.FEWEST
    assert choice["max_wer_delta"] == outcome.plan.spec.precision.max_wer_delta
    assert choice["wer"]["chosen"] <= choice["wer"]["exact"] + choice["max_wer_delta"]
    assert list(Checkpoint.open(folder / "checkpoint").precision.keep) == choice["kept"]
    assert EngineSpec.load(folder / "engine").precision == Checkpoint.open(folder / "checkpoint").precision
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["kept"]["wer"] == choice["wer"]
    assert outcome.validation is not None
    again = factory.produce(declared(tmp_path / "again", "stop_after=convert"), "")
    for step in ("keep", "convert"):
        assert again.finished[step].record["outputs"] == outcome.finished[step].record["outputs"]


def test_what_is_chosen_is_built_told_and_recorded(tmp_path: Path, chosen: list[dict[str, Any]]) -> None:
    made = declared(tmp_path, "validation=none")
    before = factory.produce(replace(made, dry_run=True), "")
    outcome = factory.produce(made, "")
    folder = outcome.plan.directory
    assert [len(request["speech"]) for request in chosen] == [clips.FEWEST]
    assert list(Checkpoint.open(folder / "checkpoint").precision.keep) == sorted(CHOSEN, key=order().index)
    spec = EngineSpec.load(folder / "engine")
    assert set(spec.precision.keep) == set(CHOSEN)
    assert spec.precision.max_wer_delta == 1.0
    named = factory.produce(declared_by_name(tmp_path), "")
    for file in ("encoder.onnx", "decoder.onnx"):
        assert (folder / "engine" / file).read_bytes() == (named.plan.directory / "engine" / file).read_bytes()
    assert [(part.load, part.peak) for part in outcome.memory.parts] == [
        (part.load, part.peak) for part in named.memory.parts]
    assert outcome.memory.least is None
    assert before.memory.least is not None
    assert before.memory.least < outcome.memory.peak < before.memory.peak
    assert "MB at the peak with none" in "\n".join(memory.table(before.memory, "cpu"))
    kept = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["kept"]
    assert kept["kept"] == CHOSEN
    assert "order" not in kept
    said = report.result(outcome)
    assert ("kept        4 of 32 layers keep 8 bits, 1.23 MB more: encoder.blocks.0.attn.query, "
            "decoder.blocks.1.mlp.2\n") in said
    assert "WER 5.50 % on 8 clips; of the exact model 5.00 %, with every layer at 4 bits 9.00 %" in said


def test_packed_engines_have_what_was_chosen(tmp_path: Path, chosen: list[dict[str, Any]]) -> None:
    outcome = factory.produce(declared(tmp_path, "backend=tensorrt", "device=rtx_4090", "stop_after=convert"), "")
    assert "pack" in outcome.finished
    text = (outcome.finished["pack"].path / "encoder.onnx").read_bytes()
    named = declared_by_name(tmp_path)
    named.backend.name, named.stop_after = "tensorrt", "convert"
    named.device = composition("device=rtx_4090").device
    schema.settle(named)
    assert text == (factory.produce(named, "").finished["pack"].path / "encoder.onnx").read_bytes()


def test_the_plan_says_what_it_will_do_and_how_long_it_takes() -> None:
    steps = planned("precision=int4_auto")
    assert list(steps)[:4] == ["fetch", "keep", "convert", "build"]
    assert re.fullmatch(r"which layers keep 8 bits: up to 1 point of WER above the exact model, on 64 clips, "
                        r"at most \d minutes on two cores", steps["keep"].about)
    for name in ("convert", "build"):
        assert steps[name].inputs["keep"] == steps["keep"].key


def test_keys_follow_the_budget_and_the_clips(tmp_path: Path) -> None:
    one = planned("precision=int4_auto")
    for other in (planned("precision=int4_auto", "precision.max_wer_delta=2"),
                  planned("precision=int4_auto", f"calibration.clips={few(tmp_path)}")):
        assert other["fetch"].key == one["fetch"].key
        assert all(other[name].key != one[name].key for name in ("keep", "convert", "build", "validate"))
    for other in (planned("precision=int4_auto", "profile=batch"), planned("precision=int4_auto", "device=l4")):
        assert other["keep"].key == one["keep"].key, "one choice for all profiles and backends"
    assert "keep" not in planned("precision=int4_g32")


@pytest.mark.parametrize(("overrides", "said"), [
    (["precision=int4_auto", "precision.max_wer_delta=0"], r"max_wer_delta=0: must be 0\.01 to 100 points"),
    (["precision=int4_auto", "precision.max_wer_delta=-1"], r"max_wer_delta=-1: must be 0\.01 to 100 points"),
    (["precision=int8", "precision.max_wer_delta=1"], "a 4-bit engine may lose .*choices: precision=int4_auto"),
    (["precision=int4_auto", "precision.keep=[encoder.*]"], "precision.keep names the layers that .* would choose"),
    (["precision=int4_auto", "calibration=gptq"], "weighs plain rounding, not what calibration=gptq makes"),
    (["precision=int4_g32", "calibration.clips=a.jsonl"], r"calibration\.clips goes with .*precision=int4_auto"),
])
def test_what_cannot_be_meant(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        schema.check(composition("model=tiny.en", *overrides))


def test_any_4_bits_can_have_a_budget_but_tensorrt_llm_has_one_algorithm_for_all_layers() -> None:
    for kind in ("int4", "int4_g128", "int4_g32"):
        assert "keep" in planned(f"precision={kind}", "precision.max_wer_delta=1")
    for kind in ("int4_auto", "int4"):
        made = composition("backend=tensorrt_llm", "device=jetson_orin_nano_8gb", f"precision={kind}",
                           "precision.max_wer_delta=1")
        with pytest.raises(UserError, match=r"precision\.max_wer_delta: TensorRT-LLM's quantisation config names one"):
            backends.get("tensorrt_llm").check(made.engine_spec())


def test_a_clip_that_validates_decides_nothing(tmp_path: Path) -> None:
    listed = few(tmp_path)
    with pytest.raises(UserError, match=r"calibration\.clips: \S+ is among the clips that validate the engine"):
        plan.make(composition("model=tiny.en", "precision=int4_auto", f"calibration.clips={listed}",
                              f"validation.clips={listed}", "validation.min_clips=1"), lambda step, key: False)


def test_clips_that_cannot_be_read_are_told_and_too_few_are_refused(tmp_path: Path) -> None:
    listed = few(tmp_path)
    with listed.open("a", encoding="utf-8") as lines:
        lines.write('\n{"audio": "nowhere.wav"}')
    made = plan.make(composition("model=tiny.en", "precision=int4_auto", f"calibration.clips={listed}"),
                     lambda step, key: False)
    assert any(note.startswith("warning: calibration skips nowhere.wav: ") for note in made.notes)
    with pytest.raises(UserError, match="has 3 clips that can be read, calibration needs 8 or more"):
        plan.make(composition("model=tiny.en", "precision=int4_auto", f"calibration.clips={few(tmp_path, 3)}"),
                  lambda step, key: False)


@pytest.mark.parametrize(("code", "kind"), [(2, UserError), (3, GateMissed), (9, EnvironmentFault)])
def test_what_the_child_says_is_said_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int,
                                                         kind: type[Exception]) -> None:
    instead = f"import sys; print('error: no budget'); sys.exit({code})  # {{path}} {{module}}"
    monkeypatch.setattr(child, "CHILD", instead)
    made = declared(tmp_path, "stop_after=convert")
    with pytest.raises(kind, match="no budget"):
        factory.produce(made, "")
    assert not list((tmp_path / "store" / "keep").glob("*/kept.json"))


def test_a_device_for_which_the_choice_is_too_large_is_refused_once_it_is_known(
    tmp_path: Path, chosen: list[dict[str, Any]]
) -> None:
    sizes = factory.produce(declared(tmp_path, "dry_run=true"), "").memory
    assert sizes.least is not None
    enough, too_little = (sizes.least + 20_000) / 1e9, (sizes.least - 20_000) / 1e9
    with pytest.raises(UserError, match="needs"):
        factory.produce(declared(tmp_path, f"device.memory_gb={too_little}"), "")
    assert not chosen, "refused before anything was made"
    with pytest.raises(UserError, match="needs"):
        factory.produce(declared(tmp_path, f"device.memory_gb={enough}", "kv_cache=contiguous"), "")


def test_bytes_that_are_told_are_those_of_the_checkpoint(tmp_path: Path, chosen: list[dict[str, Any]]) -> None:
    mixed_files = factory.produce(declared(tmp_path, "stop_after=convert"), "").finished["convert"]
    none = composition("model=debug", "precision=int4_g32", "profile=duplex_lowmem", "stop_after=convert",
                       f"store.path={tmp_path / 'store'}", f"outputs={tmp_path / 'outputs'}")
    plain = factory.produce(none, "").finished["convert"]
    spec = none.engine_spec()
    every = choosing.bytes_of(spec.dimensions, spec.precision)
    told = sum(size for candidate, size in every.items() if candidate[0] in CHOSEN)
    raw = [sum(array.nbytes for array in Checkpoint.open(made.path).raw.values()) for made in (mixed_files, plain)]
    assert raw[0] - raw[1] == told
