"""A calibrated checkpoint in each of TensorRT-LLM's layouts: the same unpack-and-compare as a plain one's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.backends.tensorrt_llm.test_packing import INT4, TINY, silent
from tests.backends.tensorrt_llm.test_unpack import TARGETS
from whisper_factory.backends.tensorrt_llm import packing, unpack, versions
from whisper_factory.calibration.passing import Window, calibrate
from whisper_factory.calibration.worker import as_stored
from whisper_factory.whisper.checkpoint import Calibrated, Checkpoint, write_checkpoint
from whisper_factory.whisper.tensors import is_quantized


@cache
def calibrated() -> Calibrated:
    rng = np.random.default_rng(0)
    windows = [Window("silence", np.full((80, 100), -1.5, np.float32), ())]
    windows += [Window(f"clip {number}", rng.standard_normal((80, 80)).astype(np.float32),
                       (rng.integers(0, 50_000, 20),)) for number in range(8)]
    found = calibrate(as_stored(TINY), TINY.dimensions, windows, "gptq")
    integers = {f"{name}.weight": (one.q, one.scale) for name, one in found.rounded.items()}
    return Calibrated(integers, found.biases, {"method": "gptq"})


@pytest.mark.parametrize(("version", "capability"), TARGETS)
def test_integers_scales_and_biases_come_back(tmp_path: Path, version: str, capability: str) -> None:
    write_checkpoint(tmp_path / "canonical", "a model", INT4, TINY, calibrated=calibrated())
    out = tmp_path / "packed"
    packing.write(tmp_path / "canonical", out, versions.parse(version), capability, INT4, silent)
    canonical, found, weights = Checkpoint.open(tmp_path / "canonical"), unpack.integers(out), unpack.read(out)
    assert set(found) == {name for name in TINY.tensors if is_quantized(name)}
    for name, (q, scale) in found.items():
        np.testing.assert_array_equal(q, calibrated().integers[name][0], strict=True)
        np.testing.assert_array_equal(scale.astype(np.float32), calibrated().integers[name][1], strict=True)
        np.testing.assert_array_equal(weights.tensors[name], canonical.tensor(name), strict=True)
    for name, bias in calibrated().biases.items():
        assert not np.array_equal(bias, TINY.tensors[name]), name
        np.testing.assert_array_equal(weights.tensors[name].astype(np.float32), bias, strict=True)
