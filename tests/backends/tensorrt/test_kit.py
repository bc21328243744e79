"""A kit, built from on its device: here with TensorRT for RTX, whose GPUs need none, so that all of it really runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.tensorrt.making import declared, packed
from whisper_factory.backends import tensorrt
from whisper_factory.engine_spec import EngineSpec

ROOT = Path(__file__).parents[3]


def kit(directory: Path, spec: EngineSpec) -> Path:
    packed(declared(), directory).rename(directory / "checkpoint.new")
    (directory / "checkpoint").rename(directory / "canonical")
    (directory / "checkpoint.new").rename(directory / "checkpoint")
    tensorrt.write_kit(spec, directory)
    return directory


def build(directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(["bash", str(directory / "build.sh")], env=environment, capture_output=True, text=True,
                          cwd="/", check=False)


def test_from_a_kit_to_an_engine(tmp_path: Path) -> None:
    directory = kit(tmp_path, declared())
    assert {file.name for file in directory.iterdir()} >= {"build.sh", "requirements.txt", "runtime", "checkpoint"}
    done = build(directory)
    assert done.returncode == 0, done.stderr
    assert f"--engine_dir {directory}" in done.stdout
    assert EngineSpec.load(directory / "engine") == declared()
    assert not (directory / ".engine.new").exists()
    again = build(directory)
    assert again.returncode == 2
    assert "is there already; move it away" in again.stderr


@pytest.mark.parametrize("version", ["full"])
def test_a_kit_on_another_machine(tmp_path: Path, version: str) -> None:
    spec = declared(capability="8.7", device="jetson_orin_nano_8gb")
    assert spec.target is not None
    directory = kit(tmp_path, replace(spec, target=replace(spec.target, version=version)))
    done = build(directory)
    assert done.returncode == 4
    assert done.stderr.startswith("error: backend 'tensorrt' needs TensorRT for this device, not installed here")
    assert not (directory / "engine").exists()
    assert "compute capability 8.7" in (directory / "build.sh").read_text(encoding="utf-8")
