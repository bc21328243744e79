"""Engines of the tiny random model whose graphs, the very files that a GPU is given, run on the CPU provider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.backends.onnxruntime.making import PRECISIONS
from tests.tiny_model import tiny_dimensions
from whisper_factory.backends import onnxruntime_cuda
from whisper_factory.backends.cuda.device import Host
from whisper_factory.backends.onnxruntime_cuda.runtime import OnnxExecutor
from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine
from whisper_factory.engine_spec import EngineSpec, KVCache, Profile

PROFILE = Profile("test", 4, 3, 750, 20, "nopad", 50, 100)


def declared(precision: str = "int8", **profile: Any) -> EngineSpec:
    """An engine of the tiny model."""
    return EngineSpec("test", "onnxruntime_cuda", tiny_dimensions(), PRECISIONS[precision],
                      replace(PROFILE, **profile), KVCache("contiguous", 64))


def built(checkpoint: Path, spec: EngineSpec, out: Path) -> Path:
    """Its directory."""
    out.mkdir(parents=True)
    onnxruntime_cuda.build(checkpoint, spec, out, lambda line: None)
    return out


def on_the_cpu(directory: Path) -> CudaEngine:
    """The engine of a directory over this process's memory."""
    return CudaEngine(EngineSpec.load(directory), Host(), OnnxExecutor(directory, None))
