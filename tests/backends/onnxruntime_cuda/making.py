"""Engines of the tiny random model whose graphs, the very files that a GPU is given, run on the CPU provider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.backends.cuda.host_pages import HostVirtual, PickyHost
from tests.backends.onnxruntime.making import PRECISIONS
from tests.tiny_model import tiny_dimensions
from whisper_factory.backends import onnxruntime_cuda
from whisper_factory.backends.cuda.kvcache import KVCaches
from whisper_factory.backends.cuda.paged import PagedCaches
from whisper_factory.backends.onnxruntime_cuda.runtime import OnnxExecutor
from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine
from whisper_factory.engine_spec import EngineSpec, KVCache, Profile

CONTIGUOUS, PAGED = KVCache("contiguous", 64), KVCache("paged", 64)
PROFILE = Profile("test", 4, 3, 750, 20, "nopad", 50, 100)


def declared(precision: str = "int8", kv_cache: KVCache = CONTIGUOUS, **profile: Any) -> EngineSpec:
    """An engine of the tiny model."""
    return EngineSpec("test", "onnxruntime_cuda", tiny_dimensions(), PRECISIONS[precision],
                      replace(PROFILE, **profile), kv_cache)


def built(checkpoint: Path, spec: EngineSpec, out: Path) -> Path:
    """Its directory."""
    out.mkdir(parents=True)
    onnxruntime_cuda.build(checkpoint, spec, out, lambda line: None)
    return out


def on_the_cpu(directory: Path, kv_cache: KVCache | None = None, left: int = 0) -> CudaEngine:
    """The engine of a directory over this process's memory.

    Args:
        kv_cache: as if it had been built so.
        left: see `PagedCaches`.
    """
    spec, virtual = EngineSpec.load(directory), HostVirtual()
    host = PickyHost(virtual)
    spec = spec if kv_cache is None else replace(spec, kv_cache=kv_cache)
    paged = spec.kv_cache.mode == "paged"
    caches = PagedCaches(spec, host, virtual, left) if paged else KVCaches(spec, host)
    return CudaEngine(spec, host, OnnxExecutor(directory, None), caches)
