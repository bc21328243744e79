from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compositions import composition
from tests.real_weights import TINY_EN, packaged
from tests.tiny_model import tiny_weights
from whisper_factory import factory, memory, schema
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.memory import CROSS_KV, GB, LIBRARIES, MB, SELF_KV, Estimate, Part
from whisper_factory.whisper.checkpoint import Checkpoint, write_checkpoint

WORST_CASE = Path(__file__).parents[1] / "benchmarks" / "worst_case.py"
ACTIVATIONS, SECOND = "encoder activations", "a second batch at once"  # names of parts
TOLERANCE, FLOOR = 0.05, 8 * MB  # whichever is larger


def spec(*overrides: str) -> EngineSpec:
    made = composition(*overrides)
    schema.settle(made)
    return made.engine_spec()


def test_sums_and_room() -> None:
    found = Estimate((Part("a", 1, 5), Part("b", 2, 3)), budget=10, reserved=3)
    assert (found.load, found.peak, found.room, found.fits) == (3, 8, 7, False)
    assert Estimate(found.parts, 11, 3).fits
    assert Estimate(found.parts, None, 3).fits  # not known
    assert found.part("b").peak == 3
    assert found.part("c").peak == 0


def test_weights_are_those_of_the_checkpoint() -> None:
    """tiny.en has 37,184,256 parameters (OpenAI's paper says 39 M, with the sinusoids)."""
    tiny = spec("model=tiny.en", "precision=float32")
    sizes = memory.weight_bytes(tiny.dimensions, tiny.precision)
    assert sum(sizes.values()) == 4 * (37_184_256 + 1500 * 384)
    assert sizes["embedding"] == 4 * 51864 * 384
    half = spec("model=tiny.en", "precision=int8")
    assert memory.weight_bytes(half.dimensions, half.precision)["embedding"] == 2 * 51864 * 384


@pytest.mark.parametrize("precision", ["int4", "int4_g32", "int4_g128"])
@pytest.mark.parametrize("keep", ["[]", "[encoder.blocks.0.mlp.0,decoder.blocks.*.mlp.2]"])
def test_scales_of_groups_and_layers_of_8_bits_count(tmp_path: Path, precision: str, keep: str) -> None:
    """The plan's bytes are those of a checkpoint's tensors, whose scales are float32."""
    made = composition("model=debug", f"precision={precision}", f"precision.keep={keep}").engine_spec()
    write_checkpoint(tmp_path, "debug", made.precision, tiny_weights())
    raw = Checkpoint.open(tmp_path).raw
    halves = sum(array.nbytes // 2 for name, array in raw.items() if name.endswith(".scale"))
    assert sum(memory.weight_bytes(made.dimensions, made.precision).values()) == sum(
        array.nbytes for array in raw.values()) - halves


def test_layers_of_8_bits_take_what_8_bits_take() -> None:
    """In the embedded engine: none kept is int4's, all kept in the decoder is int8's."""
    def parts(*overrides: str) -> list[int]:
        return [part.peak for part in memory.estimate(spec("model=tiny.en", *overrides)).parts][:2]

    none, some, decoder, int8 = (parts("precision=int4"), parts("precision=int4", "precision.keep=[encoder.*.mlp.0]"),
                                 parts("precision=int4", "precision.keep=[decoder.*]"), parts("precision=int8"))
    assert some[1] == none[1]
    assert some[0] - none[0] == 4 * 1536 * 384 // 2
    assert decoder[1] == int8[1]
    assert decoder[0] > none[0]  # where cross-attention's keys and values are made


def test_the_claim_of_97_percent_is_what_comes_out() -> None:
    """Batch 8 x beam 4 to 1 x 1: 32 slots of self-attention KV to 1, at the same lengths."""
    large = spec("profile=batch", "model=small.en", "kv_cache=contiguous")
    small = spec("profile=batch", "model=small.en", "kv_cache=contiguous", "profile.max_batch_size=1",
                 "profile.max_beam_width=1")
    before, after = (memory.estimate(each).part(SELF_KV).load for each in (large, small))
    token = 2 * 12 * 768 * 4  # keys and values, layers, state, float32
    assert before == 32 * after == 32 * (4 + 224) * token  # prompt and answer
    assert round(100 * (1 - after / before)) == 97
    # A window's, however many beams; with integers in bytes, and a sum for each head and layer.
    assert memory.estimate(large).part(CROSS_KV).load == 8 * 1549 * (token // 4 + 12 * 12 * 4)
    exact = spec("profile=batch", "model=small.en", "precision=float32", "kv_cache=contiguous")
    assert memory.estimate(exact).part(CROSS_KV).load == 8 * 1549 * token


def test_paged_memory_follows_the_turn_and_contiguous_does_not() -> None:
    for mode, padding, self_same, cross_same in (
            ("paged", "nopad", False, False), ("paged", "max", False, True),  # max: every window is the longest
            ("contiguous", "nopad", True, True), ("contiguous", "max", True, True)):
        engine = spec("profile=interactive", "model=tiny.en", f"kv_cache={mode}", f"profile.padding_strategy={padding}")
        long, short = memory.estimate(engine).parts, memory.at_turns(engine, 300)
        same = {part.name: part == other for part, other in zip(short, long, strict=True)}
        assert (same[SELF_KV], same[CROSS_KV]) == (self_same, cross_same)
    bounded = spec("profile=batch", "model=tiny.en", "kv_cache=paged", "kv_cache.max_pages=40")
    assert memory.estimate(bounded).part(SELF_KV).peak == 40 * 64 * 2 * 4 * 384 * 4


@pytest.mark.parametrize("backend", [[], ["backend=tensorrt_llm", "device=l4"]], ids=["onnxruntime", "tensorrt_llm"])
@pytest.mark.parametrize("smaller", ["precision=int8", "profile.max_batch_size=4", "profile.max_beam_width=1",
                                     "profile.max_new_tokens=64", "model=tiny.en"])
def test_what_is_smaller_takes_less(backend: list[str], smaller: str) -> None:
    base = ["model=small.en", "precision=float16", "profile=batch", *backend]
    assert memory.estimate(spec(*base, smaller)).peak < memory.estimate(spec(*base)).peak


def test_a_table_has_every_part_the_sums_and_the_budget() -> None:
    lines = memory.table(Estimate((Part("a", 1 * MB, 5 * MB), Part("b", 2 * MB, 3 * MB)), 2 * GB, 1 * GB), "orin")
    assert [line.split() for line in lines[1:4]] == [["a", "1.0", "MB", "5.0", "MB"], ["b", "2.0", "MB", "3.0", "MB"],
                                                     ["total", "3.0", "MB", "8.0", "MB"]]
    assert lines[-1] == "orin: 2.00 GB, 1.00 GB of it reserved, 992 MB left at the peak"


@pytest.mark.parametrize("overrides", [
    ("profile=duplex_lowmem", "precision=int8", "kv_cache=paged"),
    ("profile=interactive", "precision=int4", "kv_cache=contiguous", "profile.max_new_tokens=100"),
    ("profile=interactive", "precision=int4_g32", "kv_cache=contiguous", "profile.max_new_tokens=100",
     "precision.keep=[encoder.*.mlp.?]"),
    ("profile=interactive", "precision=float32", "kv_cache=paged", "profile.max_new_tokens=100"),
    ("profile=interactive", "precision=float16", "kv_cache=contiguous", "profile.max_new_tokens=100"),
    ("profile=batch", "precision=int8", "kv_cache=paged", "profile.max_batch_size=2", "profile.max_beam_width=2",
     "profile.max_new_tokens=100"),
], ids=lambda overrides: "-".join(part.partition("=")[2] for part in overrides))
def test_prediction_against_a_fresh_process(tmp_path: Path, shared_store: Path, overrides: tuple[str, ...]) -> None:
    """At load and at the worst: all windows, beams and tokens that the engine takes. The whole table: benchmarks/."""
    packaged(TINY_EN)
    made = composition("model=tiny.en", *overrides, "model=tiny.en", "validation=none", f"outputs={tmp_path}",
                       f"store.path={shared_store}")
    schema.settle(made)
    built = factory.produce(made, "")
    command = [sys.executable, str(WORST_CASE), str(built.plan.directory / "engine")]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, env=os.environ | path)
    found, planned = json.loads(child.stdout), memory.estimate(built.plan.spec)
    # Two batches' encoders run at once: which of their layers coincide is the machine's affair, and the plan has all.
    apart = planned.part(ACTIVATIONS).peak if planned.part(SECOND).peak else 0
    for moment, less in (("load", 0), ("peak", apart)):
        predicted = getattr(planned, moment) - planned.part(LIBRARIES).load
        tolerance = max(FLOOR, TOLERANCE * found[moment])
        assert predicted - less - tolerance <= found[moment] <= predicted + tolerance, moment
