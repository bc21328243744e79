"""CUDA's runtime library, through ctypes: it is there wherever a TensorRT engine can run, whatever else is installed.

Memory, copies, streams and graphs, as CUDA's documentation of libcudart (12 and 13) has them.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whisper_factory.errors import EnvironmentFault, FactoryError, UserError

if TYPE_CHECKING:  # planning asks for the GPU, and must not pay for importing numpy
    from numpy.typing import NDArray

    from whisper_factory.backends.cuda.device import Slot

NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
DIRECTORIES = ("/usr/local/cuda/lib64",)
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
MAJOR, MINOR = 75, 76  # attributes: compute capability
THREAD_LOCAL = 1  # capture mode: what other threads do meanwhile does not matter
OUT_OF_MEMORY = 2
WITHOUT_TIMES = 2  # of an event: it is waited for, not measured
FULL = ("the GPU's memory is full; stop what else uses it, or build a smaller engine: profile.max_batch_size, "
        "profile.max_beam_width, precision=int8 or int4, a smaller model")


class _Position(ctypes.Structure):
    _fields_ = (("x", ctypes.c_size_t), ("y", ctypes.c_size_t), ("z", ctypes.c_size_t))


class _Pitched(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("pitch", ctypes.c_size_t), ("width", ctypes.c_size_t),
                ("height", ctypes.c_size_t))


class _Copy3D(ctypes.Structure):
    """cudaMemcpy3DParms."""

    _fields_ = (("source_array", ctypes.c_void_p), ("source_at", _Position), ("source", _Pitched),
                ("target_array", ctypes.c_void_p), ("target_at", _Position), ("target", _Pitched),
                ("extent", _Position), ("kind", ctypes.c_int))


def _candidates() -> Iterator[str]:
    """NVIDIA's wheel first, whose library no loader's path has."""
    with suppress(ImportError, ValueError):
        found = importlib.util.find_spec("nvidia")
        for place in (found.submodule_search_locations or ()) if found else ():
            yield from sorted(map(str, Path(place).glob("*/lib/libcudart.so.*")), reverse=True)
    yield from NAMES
    for directory in DIRECTORIES:
        yield from (f"{directory}/{name}" for name in NAMES)


@cache
def library() -> ctypes.CDLL | None:
    """libcudart, loaded so that TensorRT finds it too; None if there is none."""
    for name in _candidates():
        with suppress(OSError):
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    return None


def compute_capability() -> str | None:
    """The first GPU's, as "8.7"; None if there is none that CUDA can use."""
    loaded, values = library(), []
    if loaded is None:
        return None
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        if loaded.cudaDeviceGetAttribute(ctypes.byref(value), attribute, 0) != 0:
            return None
        values.append(value.value)
    return f"{values[0]}.{values[1]}"


class CudaSlot:
    """See `device.Slot`: pinned memory, into which the GPU writes by itself, and an event that tells when it has."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        import numpy as np

        self._cuda, address, event = cuda, ctypes.c_void_p(), ctypes.c_void_p()
        cuda.call("cudaMallocHost", ctypes.byref(address), ctypes.c_size_t(max(1, size)))
        cuda.call("cudaEventCreateWithFlags", ctypes.byref(event), WITHOUT_TIMES)
        self._event = event
        self.array = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(int(address.value or 0)))

    def fetch(self, address: int) -> None:
        """See `device.Slot`."""
        self._cuda.call("cudaMemcpyAsync", ctypes.c_void_p(self.array.ctypes.data), ctypes.c_void_p(address),
                        ctypes.c_size_t(self.array.nbytes), DEVICE_TO_HOST, ctypes.c_void_p(self._cuda.stream))
        self._cuda.call("cudaEventRecord", self._event, ctypes.c_void_p(self._cuda.stream))

    def wait(self) -> None:
        """See `device.Slot`."""
        self._cuda.call("cudaEventSynchronize", self._event)


def failure(name: str, code: int, text: bytes | None) -> FactoryError:
    """What a function of CUDA's, the runtime's or the driver's (their numbers are the same), has failed with."""
    if code == OUT_OF_MEMORY:
        return UserError(FULL)
    return EnvironmentFault(f"CUDA failed: {name}: {(text or b'unknown error').decode()} ({code})")


class Cuda:
    """Memory of the first GPU, and one stream on which everything happens in order. See `device.Device`."""

    def __init__(self) -> None:
        """
        Raises:
            EnvironmentFault: there is no libcudart, or it finds no GPU.
        """
        loaded = library()
        if loaded is None:
            raise EnvironmentFault("libcudart is not installed here; it comes with CUDA, or: "
                                   "pip install nvidia-cuda-runtime")
        loaded.cudaGetErrorString.restype = ctypes.c_char_p
        self._library = loaded
        handle = ctypes.c_void_p()
        self.call("cudaStreamCreate", ctypes.byref(handle))
        self.stream = int(handle.value or 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library.

        Raises:
            UserError: the GPU's memory is full.
            EnvironmentFault: it failed otherwise.
        """
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise failure(name, code, self._library.cudaGetErrorString(code))

    def allocate(self, size: int) -> int:
        """The address of `size` bytes, zeros; kept until the process ends."""
        address = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(1, size)))
        self.call("cudaMemset", address, 0, ctypes.c_size_t(max(1, size)))
        return int(address.value or 0)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a C-ordered array there, in the stream's order; it may be changed when this returns."""
        self._copy(address, array.ctypes.data, array.nbytes, HOST_TO_DEVICE)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Fill a C-ordered array from there, once the stream has come to it."""
        self._copy(array.ctypes.data, address, array.nbytes, DEVICE_TO_HOST)
        self.synchronize()

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self.call("cudaMemcpyAsync", ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), kind,
                   ctypes.c_void_p(self.stream))

    def copy(self, target: int, source: int, extent: tuple[int, int, int], target_pitch: tuple[int, int],
             source_pitch: tuple[int, int]) -> None:
        """See `device.Device.copy`."""
        width, height, depth = extent
        if depth == 1:  # half the time to ask for
            self.call("cudaMemcpy2DAsync", ctypes.c_void_p(target), ctypes.c_size_t(target_pitch[0]),
                      ctypes.c_void_p(source), ctypes.c_size_t(source_pitch[0]), ctypes.c_size_t(width),
                      ctypes.c_size_t(height), DEVICE_TO_DEVICE, ctypes.c_void_p(self.stream))
            return
        parameters = _Copy3D(
            source=_Pitched(source, source_pitch[0], width, source_pitch[1]),
            target=_Pitched(target, target_pitch[0], width, target_pitch[1]),
            extent=_Position(width, height, depth), kind=DEVICE_TO_DEVICE,
        )
        self.call("cudaMemcpy3DAsync", ctypes.byref(parameters), ctypes.c_void_p(self.stream))

    def slot(self, size: int) -> Slot:
        """See `device.Device`."""
        return CudaSlot(self, size)

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""
        self.call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def capture(self, work: Callable[[], bool]) -> int | None:
        """What `work` puts into the stream as a CUDA graph, not run; None if it cannot be captured."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self.synchronize()
        self.call("cudaStreamBeginCapture", ctypes.c_void_p(self.stream), THREAD_LOCAL)
        done = work()
        code = self._library.cudaStreamEndCapture(ctypes.c_void_p(self.stream), ctypes.byref(graph))
        if code != 0 or not done or not graph.value:
            self._library.cudaGetLastError()  # else the next call would report it
            return None
        code = self._library.cudaGraphInstantiateWithFlags(ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        self.call("cudaGraphDestroy", graph)
        return int(ready.value or 0) if code == 0 else None

    def launch(self, graph: int) -> None:
        """Run a captured graph."""
        self.call("cudaGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(self.stream))

    def forget(self, graph: int) -> None:
        """Free a captured graph."""
        self.call("cudaGraphExecDestroy", ctypes.c_void_p(graph))
