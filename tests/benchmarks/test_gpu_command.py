"""The command line as a GPU's machine runs it, here on the CPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gpu_command
import pytest

from whisper_factory import clips

CHOSEN = ["model=debug", "precision=int8", "profile=duplex_lowmem", "kv_cache=paged"]


# A GPU whose memory is the host's: every Python that starts with this on its path has one.
SITECUSTOMIZE = """
from pathlib import Path
from whisper_factory.backends import onnxruntime_cuda
from whisper_factory.backends.onnxruntime_cuda import machine

def load(engine: Path, threads=None):
    from tests.backends.onnxruntime_cuda.making import on_the_cpu
    return on_the_cpu(engine)

machine.gpu = lambda: machine.Gpu("a GPU", 80_000_000_000, 79_000_000_000, 13)
machine.check_runtime = lambda found: None
onnxruntime_cuda.load = load
"""


def job(tmp_path: Path, *chosen: str) -> dict[str, Any]:
    return {"payload": str(tmp_path / "payload"), "work": str(tmp_path), "model": "debug", "chosen": [*CHOSEN, *chosen],
            "clip": clips.bundled("quick")[0].path}


def test_plan_build_validate_and_nothing_left_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   one_clip: tuple[str, ...]) -> None:
    """What the command line does where there is a GPU."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    root = str(Path(gpu_command.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root, os.environ.get("PYTHONPATH", "")]))
    found = gpu_command.command(job(tmp_path, "backend.provider=cuda", "validation=quick", *one_clip))
    assert found["engine"] == "debug-int8-duplex_lowmem-paged-onnxruntime_cuda"
    assert [one["name"] for one in found["commands"]] == ["plan", "run", "run again", "hear"]
    assert found["heard"]
    assert "a GPU" in found["commands"][0]["said"]
    assert found["validation"]["evidence"] == "engine"
    assert found["validation"]["summary"]["clips"] == 1
    assert any(name.startswith("onnxruntime") for name in found["validation"]["summary"]["versions"])


def test_a_command_that_is_refused_says_why(tmp_path: Path) -> None:
    with pytest.raises(gpu_command.CommandFailed, match=r"(?s)^plan \(.*exit code 2.*computes in float16"):
        gpu_command.command(job(tmp_path, "backend.provider=cuda", "precision=float32"))


def test_weights_come_from_the_payload(tmp_path: Path) -> None:
    source = tmp_path / "payload/sources/tiny.en"
    (source / "weights").mkdir(parents=True)
    (source / "step.json").write_text(json.dumps({"key": "abc"}), encoding="utf-8")
    (source / "stat.json").write_text("{}", encoding="utf-8")
    (source / "weights/model.bin").write_bytes(b"w")
    gpu_command.stocked(tmp_path / "payload", "tiny.en", tmp_path / "store")
    stored = tmp_path / "store/fetch/abc"
    assert sorted(path.name for path in stored.rglob("*")) == ["model.bin", "step.json", "weights"]
