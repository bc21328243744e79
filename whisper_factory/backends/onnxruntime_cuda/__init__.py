"""ONNX Runtime on an NVIDIA GPU: the embedded backend's engine in float16, everything of it in the GPU's memory.

Chosen by backend=onnxruntime backend.provider=cuda. Importing this imports no heavy library.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory.backends.onnxruntime import checkpoint_precision, settle, tools
from whisper_factory.backends.onnxruntime_cuda import machine
from whisper_factory.backends.onnxruntime_cuda.footprint import footprint
from whisper_factory.backends.onnxruntime_cuda.limits import check, kv_modes
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.progress import Progress, silent

if TYPE_CHECKING:
    from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine

__all__ = ["COMPUTED", "LIBRARIES", "UNPROMISED", "VERSION", "build", "check", "check_device", "checkpoint_precision",
           "device_memory", "footprint", "kv_modes", "load", "notes", "settle", "tools"]

VERSION = 2
LIBRARIES = ("numpy", "onnxruntime")
COMPUTED = {"end_anchor.bin": "<f2"}
UNPROMISED: tuple[str, ...] = ()


def notes(spec: EngineSpec) -> list[str]:
    """Where it will run."""
    found = machine.gpu()
    if found is None:
        return [f"runs on an NVIDIA GPU, and there is none here; {machine.ELSEWHERE}"]
    return [f"runs on {found.name} ({found.memory / 1e6:.0f} MB, {found.free / 1e6:.0f} free), float16"]


def device_memory() -> tuple[str, int | None]:
    """The GPU that is here, and how many bytes it has; for a plan whose device names none."""
    found = machine.gpu()
    return ("NVIDIA GPU", None) if found is None else (found.name, found.memory)


def check_device(spec: EngineSpec, needed: int) -> None:
    """See `backends.DeviceBackend`."""
    machine.check(needed, f"this engine ({spec.model}, {spec.precision.name}, batch {spec.profile.max_batch_size})")


def build(
    source: Path, spec: EngineSpec, out: Path, say: Callable[[str], None], failures: Path | None = None,
    progress: Progress = silent, caches: Path | None = None,
) -> None:
    """Build an engine directory, on any machine: logmel.onnx, encoder.onnx, decoder.onnx, their weights,
    end_anchor.bin, the vocabulary and engine.json.

    Args:
        source: a canonical checkpoint directory.
        out: an empty directory.
        failures: not used: no external command runs.
        progress: of the layers.
        caches: not used: nothing is worth keeping.

    Raises:
        UserError: the combination cannot be built, or the checkpoint is another model's.
        EnvironmentFault: onnx or onnxruntime is not installed.
    """
    check(spec)
    tools()
    from whisper_factory.backends.onnxruntime_cuda.assemble import build_engine

    build_engine(source, spec, out, say, progress)


def load(engine: Path, threads: int | None = None) -> CudaEngine:
    """Load an engine directory onto the first GPU.

    Args:
        threads: of the CPU; of no account, as the work is the GPU's.

    Raises:
        UserError: not an engine of this backend, a file of it is missing or damaged, or the GPU's memory is full.
        EnvironmentFault: there is no GPU, or no ONNX Runtime that can use it; a paged cache, and no driver for it.
    """
    if threads is not None and threads < 1:
        raise UserError(f"threads={threads} is not a thread count; choices: 1 or more")
    spec = EngineSpec.load(engine)
    found = machine.gpu()
    if found is None:
        raise EnvironmentFault(f"this engine ({spec.model}) runs on an NVIDIA GPU, and there is no driver here that "
                               f"finds one ({machine.NVML}); run it where there is, or build one with "
                               f"backend.provider=cpu")
    machine.check_runtime(found)
    from whisper_factory.backends.cuda.cudart import Cuda
    from whisper_factory.backends.cuda.paged import on_gpu
    from whisper_factory.backends.onnxruntime_cuda.runtime import OnnxExecutor
    from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine

    device = Cuda()
    loaded = CudaEngine(spec, device, OnnxExecutor(engine, device.stream), on_gpu(spec, device))
    loaded.warm_up()
    return loaded
