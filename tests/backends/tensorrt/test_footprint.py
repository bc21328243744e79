"""Engines of real weights, really built, next to what the memory plan says they take.

Every precision and every profile, not each with each: that table is benchmarks/tensorrt_builds.py's.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.backends.onnxruntime.making import make_checkpoint, tiny_en
from tests.backends.tensorrt.making import declared
from tests.compositions import composition
from tests.real_weights import BASE, packaged
from whisper_factory import memory, store
from whisper_factory.backends import tensorrt
from whisper_factory.backends.tensorrt import loading, packing
from whisper_factory.backends.tensorrt.footprint import activations, engine_bytes, weights
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import silent
from whisper_factory.whisper.checkpoint import Checkpoint
from whisper_factory.whisper.readers import Weights, ctranslate2

WANTED = [("tiny.en", "float32", "batch"), ("tiny.en", "float16", "duplex_lowmem"), ("tiny.en", "int8", "interactive"),
          ("tiny.en", "int4", "batch"), ("base", "int8", "batch")]
each = pytest.mark.parametrize(("model", "precision", "profile"), WANTED)
Built = dict[tuple[str, str, str], dict[str, Any]]


@cache  # Hydra composes in one thread alone
def engine(model: str, precision: str, profile: str) -> EngineSpec:
    """What a composition declares."""
    made = composition(f"profile={profile}", f"model={model}", f"precision={precision}", "backend=tensorrt",
                       "kv_cache=contiguous", "device=rtx_4090")
    return tensorrt.settle(made.engine_spec())


def build(checkpoint: Path, model: str, precision: str, folder: Path) -> Built:
    """Every profile's engines of one checkpoint, by what the builder reported. The encoder's graph is one for all."""
    found: Built = {}
    shared = folder / "encoder"
    shared.mkdir(parents=True)
    for profile in (profile for *kind, profile in WANTED if kind == [model, precision]):
        spec, packed, out = engine(model, precision, profile), folder / profile / "packed", folder / profile / "engine"
        packed.mkdir(parents=True)
        out.mkdir()
        if not any(shared.iterdir()):
            packing.encoder(Checkpoint.open(checkpoint), spec, shared, lambda line: None, silent)
        for file in (*shared.iterdir(), checkpoint / "vocabulary.tiktoken"):
            store.link(file, packed / file.name)
        packing.decoder(Checkpoint.open(checkpoint), spec, packed, silent)
        tensorrt.build(packed, spec, out, lambda line: None, folder / "failed")
        found[model, precision, profile] = loading.read_report(out)["stages"]
        for stage in found[model, precision, profile]:
            assert (out / f"{stage}.engine").stat().st_size == found[model, precision, profile][stage]["engine_bytes"]
            (out / f"{stage}.engine").unlink()
            (packed / f"{stage}.weights").unlink()
    return found


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All of them, two at a time."""
    root = tmp_path_factory.mktemp("builds")
    joined = root / "base"
    joined.mkdir()
    (joined / "model.bin").write_bytes(b"".join(packaged(part).read_bytes() for part in BASE))
    read: dict[str, Weights] = {"tiny.en": tiny_en(), "base": ctranslate2.read(joined)}
    for combination in WANTED:
        engine(*combination)
    todo = [(make_checkpoint(root / model / precision / "checkpoint", read[model], precision), model, precision,
             root / model / precision / "built") for model, precision in dict.fromkeys(wanted[:2] for wanted in WANTED)]
    with ThreadPoolExecutor(2) as pool:
        return {key: stages for built in pool.map(lambda job: build(*job), todo) for key, stages in built.items()}


@each
def test_nothing_is_dequantised_or_there_twice(builds: Built, model: str, precision: str, profile: str) -> None:
    """What the builder says of weights is the plan's to the percent, and the files are within 10 % of it."""
    spec, stages = engine(model, precision, profile), builds[model, precision, profile]
    constants = weights(spec)
    expected = {"encoder": constants["encoder"], "decoder": constants["decoder"] + constants["embedding"]}
    for stage, report in stages.items():
        assert report["weights_bytes"] == pytest.approx(expected[stage], rel=0.01), stage
        assert report["engine_bytes"] == pytest.approx(engine_bytes(spec)[stage], rel=0.1), stage
    planned = memory.estimate(spec)
    told = sum(part.load for part in planned.parts if part.name.startswith(("weights", "embedding", "programs")))
    assert sum(report["engine_bytes"] for report in stages.values()) == pytest.approx(told, rel=0.1)


@each
def test_activations_are_planned_for(builds: Built, model: str, precision: str, profile: str) -> None:
    """The plan is no less than what the builder reserves, and at most double."""
    spec, stages = engine(model, precision, profile), builds[model, precision, profile]
    reserved = max(report["activation_bytes"] for report in stages.values())
    assert reserved <= activations(spec) <= 2 * reserved


def test_shapes_are_the_compositions(builds: Built) -> None:
    shapes = {stage: report["shapes"] for stage, report in builds["tiny.en", "int4", "batch"].items()}
    assert shapes["encoder"]["mel"] == [[1, 80, 750], [8, 80, 3000], [8, 80, 3000]]
    assert shapes["decoder"]["tokens"] == [[1, 1], [32, 1], [32, 4]]
    assert shapes["decoder"]["past_k_3"] == [[1, 6, 228, 64], [32, 6, 228, 64], [32, 6, 228, 64]]
    assert shapes["decoder"]["cross_v_0"] == [[1, 6, 425, 64], [8, 6, 1500, 64], [8, 6, 1549, 64]]
    short = builds["tiny.en", "float16", "duplex_lowmem"]
    assert short["encoder"]["shapes"]["mel"] == [[1, 80, 750], [1, 80, 850], [1, 80, 850]]
    assert short["decoder"]["shapes"]["cross_k_0"] == [[1, 6, 425, 64], [1, 6, 475, 64], [1, 6, 475, 64]]


def test_a_smaller_precision_takes_less() -> None:
    sizes = [sum(weights(declared(precision)).values()) for precision in ("float32", "float16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
