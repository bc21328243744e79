"""Engine directories: their files, their bytes, and that ONNX itself finds the graphs valid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.backends.onnxruntime.making import PRECISIONS, build, make_checkpoint, make_spec
from tests.tiny_model import tiny_dimensions, tiny_weights
from whisper_factory import digest
from whisper_factory.backends import onnxruntime
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError
from whisper_factory.whisper.checkpoint import Checkpoint

Lookup = Callable[[str], Path]
FILES = {"encoder.onnx", "encoder.weights", "end_anchor.bin", "decoder.onnx", "decoder.weights",
         "token_embedding.weights", "vocabulary.tiktoken", "engine.json"}
ROOT = Path(__file__).parents[3]


def digests(engine: Path) -> dict[str, str]:
    return {file.name: digest.of_file(file) for file in sorted(engine.iterdir())}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_files(engines: Lookup, checkpoints: Lookup, precision: str) -> None:
    engine = engines(precision)
    assert {file.name for file in engine.iterdir()} == FILES
    assert EngineSpec.load(engine) == make_spec(tiny_dimensions(), precision)
    vocabulary = "vocabulary.tiktoken"
    assert (engine / vocabulary).read_bytes() == (checkpoints(precision) / vocabulary).read_bytes()
    for name in ("encoder", "decoder"):
        onnx.checker.check_model(str(engine / f"{name}.onnx"))
        assert (engine / f"{name}.onnx").stat().st_size < 50_000, "weights belong into the other file"


def test_same_bytes_in_other_processes(checkpoints: Lookup, engines: Lookup, tmp_path: Path) -> None:
    """Whatever the hash seed, the working directory, and the thread count."""
    code = ("import sys, json; from pathlib import Path; from whisper_factory.backends import onnxruntime\n"
            "from whisper_factory.engine_spec import EngineSpec\n"
            "checkpoint, spec, out = sys.argv[1:]\n"
            "spec = EngineSpec.from_dict(json.loads(spec))\n"
            "onnxruntime.build(Path(checkpoint), spec, Path(out), lambda line: None)")
    spec = json.dumps(make_spec(tiny_dimensions(), "int8").to_dict())
    one = [min(os.sched_getaffinity(0))]
    for seed, cpus in (("0", one), ("1", list(os.sched_getaffinity(0)))):
        out, here = tmp_path / f"out{seed}", tmp_path / f"here{seed}"
        out.mkdir()
        here.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, checkpoints("int8"), spec, out], cwd=here, check=True,
                       env=environment, preexec_fn=lambda cpus=cpus: os.sched_setaffinity(0, cpus))  # type: ignore[misc]
        assert digests(out) == digests(engines("int8"))


def test_without_an_anchor(checkpoints: Lookup, tmp_path: Path) -> None:
    engine = build(checkpoints("float16"), tmp_path / "engine", end_anchor=0)
    assert {file.name for file in engine.iterdir()} == FILES - {"end_anchor.bin"}
    loaded = onnxruntime.load(engine)
    states = loaded.opened.encoder.run(["encoder_states"], {"mel": np.zeros((1, 80, 100), np.float32)})[0]
    assert states.shape == (1, 50, 128)
    assert loaded.encode(np.zeros((1, 80, 100), np.float32)).decode(np.array([[1, 2]])).shape == (1, 51864)


def test_products_apart_compute_the_same(checkpoints: Lookup, engines: Lookup, tmp_path: Path) -> None:
    """To the bit: each of their numbers is the same sum."""
    opened, apart = Checkpoint.open(checkpoints("float32")), tmp_path / "apart"
    apart.mkdir()
    onnxruntime.build_from(opened, checkpoints("float32") / "vocabulary.tiktoken",
                           make_spec(opened.dimensions, "float32"), apart, lambda line: None, apart=True)
    operators = [node.op_type for node in onnx.load(apart / "encoder.onnx", load_external_data=False).graph.node]
    assert "Split" not in operators
    mel = np.random.default_rng(0).normal(size=(1, 80, 600)).astype(np.float32)
    one, other = (onnxruntime.load(engine).opened.encoder.run(None, {"mel": mel})
                  for engine in (engines("float32"), apart))
    assert all(map(np.array_equal, one, other))


def test_only_the_anchor_is_computed(engines: Lookup, tmp_path: Path) -> None:
    """Another anchor changes no other file but the encoder's graph (its rows) and the profile."""
    other = build(make_checkpoint(tmp_path / "checkpoint", tiny_weights(), "float32"), tmp_path / "engine",
                  end_anchor=20)
    mine, theirs = digests(engines("float32")), digests(other)
    assert {name for name in FILES if mine[name] != theirs[name]} == {"encoder.onnx", "end_anchor.bin", "engine.json"}
    last = np.fromfile(engines("float32") / "end_anchor.bin", np.float32).reshape(50, 128)[-20:]
    assert np.array_equal(np.fromfile(other / "end_anchor.bin", np.float32).reshape(20, 128), last)


def test_embedding_is_stored_once(engines: Lookup) -> None:
    """The largest matrix of a small model, once in bytes: float32, float16, and 8 bits with a scale a row."""
    table = 51864 * 128
    integers = -(-table // 4096) * 4096 + 4 * 51864  # the scales begin on a page
    sizes = {"float32": 4 * table, "float16": 2 * table, "int8": integers, "int4": integers}
    for precision, size in sizes.items():
        assert (engines(precision) / "token_embedding.weights").stat().st_size == size
        assert (engines(precision) / "decoder.weights").stat().st_size < 4.5 * 900_000, precision  # all the others


def test_large_tensors_start_on_a_page(engines: Lookup) -> None:
    for name in ("encoder", "decoder"):
        model = onnx.load(str(engines("int4") / f"{name}.onnx"), load_external_data=False)
        for tensor in model.graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            if int(place.get("length", 0)) >= 4096:
                assert int(place.get("offset", 0)) % 4096 == 0, tensor.name


def test_checkpoint_of_something_else(checkpoints: Lookup, tmp_path: Path) -> None:
    for spec, words in ((make_spec(tiny_dimensions(), "int4"), "precision"),
                        (make_spec(tiny_dimensions(multilingual=True), "int8"), "dimensions")):
        with pytest.raises(UserError, match=words):
            onnxruntime.build(checkpoints("int8"), spec, tmp_path, lambda line: None)
    assert not list(tmp_path.iterdir())


def test_other_shapes_of_models(tmp_path: Path) -> None:
    """128 mels, more heads than layers, a stack deeper than the other, blocks smaller than 128."""
    weights = tiny_weights(multilingual=True, n_mels=128, n_audio_state=96, n_text_state=96, n_audio_head=6,
                           n_text_head=3, n_audio_layer=1, n_text_layer=3)
    for precision in ("float32", "int4"):
        checkpoint = make_checkpoint(tmp_path / precision / "checkpoint", weights, precision)
        engine = onnxruntime.load(build(checkpoint, tmp_path / precision / "engine"))
        utterance = engine.encode(np.zeros((2, 128, 20), np.float32))
        assert np.isfinite(utterance.decode(np.ones((2, 4), np.int64))).all()
