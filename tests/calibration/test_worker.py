"""The process that calibrates: what it says of how far it is, and its answer, written and read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import whisper

from tests.tiny_model import tiny_dimensions
from whisper_factory.calibration import clips, worker
from whisper_factory.calibration.passing import Calibrated
from whisper_factory.engine_spec import Precision
from whisper_factory.quantization.compensated import Rounded
from whisper_factory.steps.calibrating import DONE
from whisper_factory.whisper.readers.random import FILE
from whisper_factory.whisper.tensors import is_quantized, tensor_shapes

GPT2 = Path(whisper.__file__).parent / "assets" / "gpt2.tiktoken"


def test_a_line_is_said_for_each_layer_kept_ones_among_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = tiny_dimensions(n_audio_layer=1, n_text_layer=1)
    (tmp_path / FILE).write_text(json.dumps({"seed": 0, "dimensions": asdict(sizes)}), encoding="utf-8")
    kept = tuple(f"encoder.blocks.0.attn.{part}" for part in ("query", "key", "value"))
    speech = [asdict(one) | {"path": str(one.path)} for one in clips.bundled()[: clips.FEWEST]]
    found = worker.run({"weights": str(tmp_path), "kind": "random", "vocabulary": str(GPT2), "speech": speech,
                        "method": "scale", "seed": 0,
                        "precision": Precision("int4", 4, "float16", keep=kept).to_dict()})
    layers = {name.removesuffix(".weight") for name in filter(is_quantized, tensor_shapes(sizes))}
    lines = capsys.readouterr().out.splitlines(keepends=True)
    assert lines == [f"rounded {number} of {len(layers)}\n" for number in range(1, len(layers) + 1)]
    assert all(map(DONE.fullmatch, lines))
    assert set(found.rounded) == layers - set(kept)


def test_an_answer_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rounded = {f"layer.{groups}": Rounded(rng.integers(-8, 8, (4, 6)).astype(np.int8), rng.random(shape, np.float32))
               for groups, shape in ((1, (4,)), (2, (4, 2)))}
    biases = {"layer.1.bias": rng.random(4, np.float32)}
    worker.write(tmp_path / "answer.safetensors", Calibrated(rounded, biases))
    integers, found = worker.read(tmp_path / "answer.safetensors")
    assert set(integers) == {"layer.1.weight", "layer.2.weight"}
    for name, one in rounded.items():
        np.testing.assert_array_equal(integers[f"{name}.weight"][0], one.q, strict=True)
        np.testing.assert_array_equal(integers[f"{name}.weight"][1], one.scale, strict=True)
    assert set(found) == set(biases)
    np.testing.assert_array_equal(found["layer.1.bias"], biases["layer.1.bias"], strict=True)
