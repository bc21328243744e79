"""What this machine has of what an engine needs: driver, GPU, memory, and an ONNX Runtime that can use them.

Asked of NVIDIA's management library (NVML), which comes with the driver and, unlike CUDA, takes nothing of the GPU to
answer.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from whisper_factory.errors import EnvironmentFault

NVML = "libnvidia-ml.so.1"
INSTALL = "pip install 'whisper-factory[cuda]'"
ELSEWHERE = "to build for another machine: stop_after=build"
PACKAGE = "onnxruntime-gpu"


class Gpu(NamedTuple):
    """The first GPU."""

    name: str
    memory: int  # bytes
    free: int
    cuda: int  # the newest major version of CUDA that its driver runs


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@cache
def _library() -> ctypes.CDLL | None:
    with suppress(OSError):
        return ctypes.CDLL(NVML)
    return None


def gpu() -> Gpu | None:
    """The first GPU, as it is now; None where there is no driver or it finds none."""
    library, handle, memory, version = _library(), ctypes.c_void_p(), _Memory(), ctypes.c_int()
    if library is None or library.nvmlInit_v2() != 0:
        return None
    try:
        name = ctypes.create_string_buffer(96)
        asked = (library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)),
                 library.nvmlDeviceGetName(handle, name, len(name)),
                 library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)),
                 library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version)))
        if any(asked):
            return None
        return Gpu(name.value.decode(), memory.total, memory.free, version.value // 1000)
    finally:
        library.nvmlShutdown()


def runtime() -> str | None:
    """The version of the ONNX Runtime with the CUDA provider that is installed; None if none is."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(PACKAGE)
    return None


def built_for() -> int | None:
    """The major version of CUDA that the installed ONNX Runtime is built for; None if it does not say."""
    found = util.find_spec("onnxruntime")
    said = Path(found.origin).parent / "capi" / "build_and_package_info.py" if found and found.origin else None
    with suppress(OSError, ValueError, StopIteration):
        lines = said.read_text(encoding="utf-8").splitlines() if said else []
        line = next(line for line in lines if line.startswith("cuda_version"))
        return int(line.partition("=")[2].strip(" '\"").partition(".")[0])
    return None


def check(needed: int, what: str) -> None:
    """Refuse what this machine cannot run.

    Args:
        needed: bytes of device memory.
        what: the engine, for the message.

    Raises:
        EnvironmentFault: no driver or GPU, no ONNX Runtime for it, one for another CUDA, too little free memory.
    """
    found = gpu()
    if found is None:
        raise EnvironmentFault(f"backend.provider=cuda needs an NVIDIA GPU, and there is no driver here that finds one "
                               f"({NVML}); install NVIDIA's driver, or backend.provider=cpu; {ELSEWHERE}")
    check_runtime(found)
    if needed > found.free:
        raise EnvironmentFault(f"{what} needs {needed / 1e6:.0f} MB of {found.name}, of whose "
                               f"{found.memory / 1e6:.0f} MB {found.free / 1e6:.0f} are free; stop what else uses it, "
                               f"or ask for less: profile.max_batch_size, max_beam_width, precision=int8 or int4")


def check_runtime(found: Gpu) -> None:
    """Refuse an ONNX Runtime that cannot use this GPU."""
    if runtime() is None:
        others = [name for name in ("onnxruntime",) if util.find_spec(name)]
        have = "onnxruntime is, which knows the CPU alone" if others else "no onnxruntime is"
        raise EnvironmentFault(f"backend.provider=cuda needs {PACKAGE}, not installed here ({have}); "
                               f"pip uninstall onnxruntime; {INSTALL}")
    wanted = built_for()
    if wanted is not None and wanted > found.cuda:
        raise EnvironmentFault(f"{PACKAGE} {runtime()} is built for CUDA {wanted}, {found.name}'s driver runs CUDA "
                               f"{found.cuda} at most; install a newer driver, or an {PACKAGE} for CUDA {found.cuda}")
    if missing := missing_library():
        raise EnvironmentFault(f"{PACKAGE} {runtime()} cannot load its CUDA provider: {missing}; {INSTALL}, which "
                               f"brings CUDA's libraries, or install CUDA {wanted or found.cuda} and cuDNN 9")


def missing_library() -> str | None:
    """Why the CUDA provider cannot be loaded; None if it can. Loads CUDA's libraries, and takes nothing of the GPU."""
    import onnxruntime

    preload()
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return str(error)
    return None


def preload() -> None:
    """Load CUDA's libraries from NVIDIA's wheels, where no loader finds them, if they are installed as such."""
    import contextlib
    import io

    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls(directory="")
