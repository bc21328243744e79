"""Engines to declare, packed graphs of random weights, and what stands in for what only an NVIDIA machine has."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.backends.onnxruntime.making import PRECISIONS, make_checkpoint
from tests.tiny_model import tiny_dimensions, tiny_weights
from whisper_factory.backends import tensorrt
from whisper_factory.backends.cuda import cudart
from whisper_factory.backends.tensorrt import flavours
from whisper_factory.engine_spec import EngineSpec, KVCache, Profile, Target

PROFILE = Profile("test", 2, 3, 750, 20, "max", 50, 100)
VERSION = "1.7.1.116"


def declared(precision: str = "int8", capability: str = "8.9", device: str = "rtx_4090", **profile: Any) -> EngineSpec:
    """An engine of the tiny model, settled."""
    target = Target(device, capability, "", False, 0.2, 0.5)
    return tensorrt.settle(EngineSpec("tiny.en", "tensorrt", tiny_dimensions(), PRECISIONS[precision],
                                      replace(PROFILE, **profile), KVCache("contiguous", 64), target))


def packed(spec: EngineSpec, directory: Path) -> Path:
    """What `pack` makes of random weights, in packed/."""
    name = next(name for name, made in PRECISIONS.items() if made == spec.precision)
    checkpoint = make_checkpoint(directory / "checkpoint", tiny_weights(), name)
    out = directory / "packed"
    out.mkdir(parents=True)
    tensorrt.pack(checkpoint, spec, out, lambda line: None)
    return out


def graphs(spec: EngineSpec, directory: Path) -> Path:
    """A directory whose graphs run on the CPU."""
    return tensorrt.stand_in(packed(spec, directory), spec, directory / "scratch", lambda line: None, directory)


@cache
def built(precision: str, root: Path) -> Path:
    """An engine directory that TensorRT for RTX built, engine/, from packed/ beside it."""
    spec, out = declared(precision), root / precision / "engine"
    out.mkdir(parents=True)
    tensorrt.build(packed(spec, root / precision), spec, out, lambda line: None, root / "failed")
    return out


def gpu(monkeypatch: pytest.MonkeyPatch, capability: str | None, **versions: str | None) -> None:
    """A machine with a GPU, or without one, and with these TensorRTs."""
    monkeypatch.setattr(cudart, "compute_capability", lambda: capability)
    monkeypatch.setattr(flavours, "installed", lambda flavour: versions.get(flavour.name))
