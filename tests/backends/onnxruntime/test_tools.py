"""Which packages shape the bytes, found without importing them."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from whisper_factory.backends import onnxruntime
from whisper_factory.errors import EnvironmentFault


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Make these packages, underscores for hyphens, the only ones that are installed."""

    def version(name: str) -> str:
        if name.replace("-", "_") not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name.replace("-", "_")]

    monkeypatch.setattr(metadata, "version", version)


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, numpy="2.1", onnx="1.19.0", onnxruntime="1.23.2")
    assert onnxruntime.tools() == {"numpy": "2.1", "onnx": "1.19.0", "onnxruntime": "1.23.2"}
    installed(monkeypatch, numpy="2.1", onnx="1.19.0", onnxruntime_gpu="1.24")
    assert onnxruntime.tools() == {"numpy": "2.1", "onnx": "1.19.0", "onnxruntime-gpu": "1.24"}


def test_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, numpy="2.1")
    with pytest.raises(EnvironmentFault, match=r"needs onnx, onnxruntime.*whisper-factory\[onnxruntime\]"):
        onnxruntime.tools()
    monkeypatch.setattr(onnxruntime, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'whisper-factory\[onnxruntime\]'"):
        onnxruntime.load(tmp_path)


def test_planning_imports_nothing_heavy() -> None:
    code = ("import sys; from whisper_factory import backends; b = backends.get('onnxruntime'); b.tools(); b.VERSION\n"
            "print(sorted({'numpy', 'onnx', 'onnxruntime', 'safetensors'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
