"""What is refused before TensorRT is imported, and said with both sides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.backends.tensorrt.making import declared, gpu
from whisper_factory.backends import tensorrt
from whisper_factory.errors import EnvironmentFault, FactoryError, UserError


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """What is looked at of an engine directory."""
    declared().save(tmp_path)
    write(tmp_path)
    for stage in ("encoder", "decoder"):
        (tmp_path / f"{stage}.engine").write_bytes(b"no engine")
    return tmp_path


def write(engine: Path, **changes: Any) -> None:
    report = {"format": 1, "flavour": "rtx", "version": "1.7.1.116", "compute_capability": "8.9", "device": "rtx_4090"}
    (engine / "build.json").write_text(json.dumps({**report, **changes}), encoding="utf-8")


BUILT = r"this engine was built with TensorRT for RTX 1\.7\.1\.116 for compute capability 8\.9"


@pytest.mark.parametrize(("capability", "versions", "error", "said"), [
    ("8.9", {}, EnvironmentFault, f"{BUILT}, installed is no TensorRT; install TensorRT for RTX 1.7.1.116"),
    ("8.9", {"full": "10.3.0"}, EnvironmentFault, rf"{BUILT}, installed is TensorRT 10\.3\.0; install"),
    ("8.9", {"rtx": "1.8.0.1"}, UserError, rf"{BUILT}, installed is TensorRT for RTX 1\.8\.0\.1, which cannot load it"),
    (None, {"rtx": "1.7.1.116"}, EnvironmentFault, rf"{BUILT} \(rtx_4090\), and CUDA finds no GPU here; run it there"),
    ("8.6", {"rtx": "1.7.1.116"}, UserError, rf"{BUILT}, this GPU has 8\.6; build it for this GPU"),
    ("9.0", {"rtx": "1.7.1.116"}, UserError, rf"{BUILT}, this GPU has 9\.0; no engine of .* RTX runs on 9\.0"),
])
def test_another_machine(engine: Path, monkeypatch: pytest.MonkeyPatch, capability: str | None,
                         versions: dict[str, str], error: type[FactoryError], said: str) -> None:
    gpu(monkeypatch, capability, **versions)
    with pytest.raises(error, match=said):
        tensorrt.load(engine)


def test_a_damaged_directory(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, "8.9", rtx="1.7.1.116")
    (engine / "decoder.engine").unlink()
    with pytest.raises(UserError, match=r"holds no built engine \(decoder\.engine is missing\); build it again"):
        tensorrt.load(engine)
    write(engine, format=2)
    with pytest.raises(UserError, match="format 2, this version reads 1"):
        tensorrt.load(engine)
    (engine / "build.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"holds no built engine \(build\.json: KeyError"):
        tensorrt.load(engine)
    (engine / "build.json").unlink()
    with pytest.raises(UserError, match=r"holds no built engine \(build\.json: FileNotFoundError"):
        tensorrt.load(engine)
    with pytest.raises(UserError, match="threads=0"):
        tensorrt.load(engine, 0)
    shutil.rmtree(engine)
    with pytest.raises(UserError, match="not an engine directory"):
        tensorrt.load(engine)
