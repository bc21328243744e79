"""Builds that work, and builds that fail: one error with the node, a log in its file, a script that repeats it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.backends.tensorrt import making
from tests.backends.tensorrt.making import declared, gpu, packed
from whisper_factory.backends import tensorrt
from whisper_factory.backends.tensorrt import building, compile, flavours
from whisper_factory.backends.tensorrt.adapter import Library
from whisper_factory.backends.tensorrt.footprint import weights
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return making.built("int8", tmp_path_factory.mktemp("built"))


def broken(directory: Path, node: onnx.NodeProto) -> Path:
    """Packed graphs whose encoder has a node more, between the last and its output."""
    source = packed(declared(), directory)
    model = onnx.load(str(source / "encoder.onnx"), load_external_data=False)
    output = model.graph.output[0].name
    for made in model.graph.node:
        made.output[:] = ["before" if name == output else name for name in made.output]
    model.graph.node.append(node)
    (source / "encoder.onnx").write_bytes(model.SerializeToString())
    return source


def failing(source: Path, spec: EngineSpec, directory: Path) -> str:
    out = directory / "engine"
    out.mkdir()
    with pytest.raises(EnvironmentFault) as error:
        tensorrt.build(source, spec, out, lambda line: None, directory / "failed")
    return str(error.value)


@pytest.mark.parametrize("precision", ["int4_g128", "int4_g32", "mixed"])
def test_groups_and_layers_of_8_bits_are_compiled(precision: str, tmp_path: Path) -> None:
    """TensorRT's parser takes their scales, and holds the integers as they are: the plan's bytes."""
    spec = declared(precision)
    report = json.loads((making.built(precision, tmp_path) / "build.json").read_text(encoding="utf-8"))["stages"]
    planned = weights(spec)
    assert report["encoder"]["weights_bytes"] == pytest.approx(planned["encoder"], rel=0.01)
    assert report["decoder"]["weights_bytes"] == pytest.approx(planned["decoder"] + planned["embedding"], rel=0.01)
    assert planned["encoder"] > weights(declared("int4"))["encoder"] or precision == "int4_g128"


def test_an_engine_directory(engine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert {file.name for file in engine.iterdir()} == {
        "encoder.engine", "decoder.engine", "encoder.log", "decoder.log", "build.json", "vocabulary.tiktoken",
        "engine.json"}
    assert EngineSpec.load(engine) == declared()
    report = json.loads((engine / "build.json").read_text(encoding="utf-8"))
    assert (report["flavour"], report["version"], report["compute_capability"]) == (
        "rtx", flavours.installed(flavours.RTX), "8.9")
    for stage in ("encoder", "decoder"):
        told = report["stages"][stage]
        assert told["layers"] > 100
        assert told["seconds"] > 0
        assert 0 < told["weights_bytes"] < told["engine_bytes"] == (engine / f"{stage}.engine").stat().st_size
        assert "Total Weights Memory" in (engine / f"{stage}.log").read_text(encoding="utf-8")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("kind", "said"), [
    ("Squiggle", r"TensorRT for RTX [\d.]+ failed at node 'squiggled' \(Squiggle\): "),
    ("MatMul", r"failed at node 'squiggled'"),
])
def test_a_node_that_cannot_be_built(kind: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An operator that nobody has, and a product whose shapes do not fit."""
    node = onnx.helper.make_node(kind, ["before"] if kind == "Squiggle" else ["before", "end_anchor"], ["cross_k_0"],
                                 name="squiggled")
    message = failing(broken(tmp_path, node), declared(), tmp_path)
    assert "\n" not in message
    assert re.search(said, message), message
    log, script = tmp_path / "failed" / "encoder.log", tmp_path / "failed" / "encoder" / "reproduce.sh"
    assert f"log: {log}; again: bash {script}" in message
    assert "[ERROR]" in log.read_text(encoding="utf-8")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    elsewhere = [place for place in sys.path if place and Path(place) != ROOT]  # the script knows where we are
    again = subprocess.run(["bash", str(script)], env={**os.environ, "PYTHONPATH": os.pathsep.join(elsewhere)},
                           cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == compile.FAILED, again.stderr
    report = json.loads((script.parent / "encoder.json").read_text(encoding="utf-8"))
    assert report["node"] == "squiggled"
    assert report["error"][:200] in message


def test_shapes_that_do_not_fit_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the builder, not the parser, refuses: the node is taken from what it says."""
    spec = declared()
    ranges = building.shapes.ranges(spec)
    least, _, most = ranges["decoder"]["mask"]
    ranges["decoder"]["mask"] = (least, (1, least[1] + 1), most)
    monkeypatch.setattr(building.shapes, "ranges", lambda spec: ranges)
    message = failing(packed(spec, tmp_path), spec, tmp_path)
    assert "decoder: TensorRT for RTX" in message
    assert "at node 'decoder.blocks.0.attn.masked'" in message
    assert "--optShapes=tokens:6x1,positions:1,mask:1x26," in (
        tmp_path / "failed" / "decoder" / "reproduce.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize(("code", "said"), [
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"ran out of memory \(killed by SIGKILL\).*int4"),
    ("print('std::bad_alloc'); raise SystemExit(1)", r"ran out of memory \(exit code 1\)"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"failed \(killed by SIGSEGV\)"),
    ("print('a library is missing'); raise SystemExit(1)", r"failed \(exit code 1\): a library is missing"),
])
def test_a_builder_that_dies(code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CHILD", code)
    message = failing(packed(declared(), tmp_path), declared(), tmp_path)
    assert re.search(f"encoder: TensorRT for RTX .* {said}", message), message


def test_a_compute_capability_that_the_builder_does_not_know(tmp_path: Path) -> None:
    spec = declared()
    assert spec.target is not None
    spec = replace(spec, target=replace(spec.target, compute_capability="9.0", version="rtx"))
    assert "builds for no compute capability 9.0" in failing(packed(declared(), tmp_path), spec, tmp_path)


def test_it_really_builds_for_every_gpu_that_it_serves() -> None:
    """The list that plans go by is the builder's own."""
    known = Library(flavours.RTX).trt.ComputeCapability
    names = {name for name in dir(known) if name.startswith("SM")}
    assert names == {f"SM{capability.replace('.', '')}" for capability in flavours.RTX_SERVES}


def test_float32_is_not_rounded() -> None:
    library = Library(flavours.RTX)
    config = library.trt.Builder(library.logger(library.heard)).create_builder_config()
    assert config.get_flag(library.trt.BuilderFlag.TF32)
    library.compute_as_declared(config)
    assert not config.get_flag(library.trt.BuilderFlag.TF32)


def test_the_full_tensorrt_builds_on_its_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = declared(capability="8.7", device="jetson_orin_nano_8gb")
    for here, error, said in ((None, EnvironmentFault, "CUDA finds no GPU here; build on jetson_orin_nano_8gb"),
                              ("8.9", UserError, r"at hand, of compute capability 8\.9; the engine is for 8\.7")):
        gpu(monkeypatch, here, full="10.3.0")
        with pytest.raises(error, match=said):
            building.check_machine(spec)
    gpu(monkeypatch, "8.7", full="10.3.0")
    assert building.check_machine(spec) == (flavours.FULL, "10.3.0")
    gpu(monkeypatch, "8.7", rtx="1.7")
    with pytest.raises(EnvironmentFault, match="needs TensorRT for this device, not installed here"):
        building.check_machine(spec)


def test_timing_caches_are_kept_by_version_and_device(tmp_path: Path) -> None:
    """TensorRT for RTX measures nothing when it builds, so a stand-in for the full one is asked."""
    job = building._job("encoder", flavours.FULL, declared(capability="8.7"), {}, tmp_path / "caches", "10.3.0")
    assert job["timing_cache"] == str(tmp_path / "caches" / "tensorrt" / "full-10.3.0-8.7.timing")

    class Cache:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def serialize(self) -> memoryview:
            return memoryview(self.data + b"+")

    class Config:
        def create_timing_cache(self, data: bytes) -> Cache:
            return Cache(data)

        def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> None:
            assert not ignore_mismatch
            self.cache = cache if cache.data != b"another version's" else Cache(b"")

        def get_timing_cache(self) -> Cache:
            return self.cache

    library = Library(flavours.RTX)
    path = Path(job["timing_cache"])
    for before, after in ((None, b"+"), (b"+", b"++"), (b"another version's", b"+")):
        if before:
            path.write_bytes(before)
        config = Config()
        library.use_timing_cache(config, path)
        compile._keep(path, library.times(config))
        assert path.read_bytes() == after
    assert not library.times_kernels


def test_the_same_graphs_in_other_processes(tmp_path: Path) -> None:
    """Packing gives the same bytes twice; an engine's are its builder's."""
    one, two = packed(declared("int4"), tmp_path / "one"), packed(declared("int4"), tmp_path / "two")
    assert {file.name: file.read_bytes() for file in one.iterdir()} == {
        file.name: file.read_bytes() for file in two.iterdir()}
    assert np.fromfile(one / "end_anchor.bin", np.float16).size == 50 * 128
