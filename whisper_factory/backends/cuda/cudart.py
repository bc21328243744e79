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

from whisper_factory.errors import EnvironmentFault, UserError

if TYPE_CHECKING:  # planning asks for the GPU, and must not pay for importing numpy
    from numpy.typing import NDArray

NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
DIRECTORIES = ("/usr/local/cuda/lib64",)
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
MAJOR, MINOR = 75, 76  # attributes: compute capability
THREAD_LOCAL = 1  # capture mode: what other threads do meanwhile does not matter
OUT_OF_MEMORY = 2


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
        self._call("cudaStreamCreate", ctypes.byref(handle))
        self.stream = int(handle.value or 0)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == OUT_OF_MEMORY:
            raise UserError("the GPU's memory is full; stop what else uses it, or build a smaller engine: "
                            "profile.max_batch_size, profile.max_beam_width, precision=int8 or int4, a smaller model")
        if code != 0:
            text = self._library.cudaGetErrorString(code).decode()
            raise EnvironmentFault(f"CUDA failed: {name}: {text} ({code})")

    def allocate(self, size: int) -> int:
        """The address of `size` bytes, zeros; kept until the process ends."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(max(1, size)))
        self._call("cudaMemset", address, 0, ctypes.c_size_t(max(1, size)))
        return int(address.value or 0)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a C-ordered array there, in the stream's order; it may be changed when this returns."""
        self._copy(address, array.ctypes.data, array.nbytes, HOST_TO_DEVICE)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Fill a C-ordered array from there, once the stream has come to it."""
        self._copy(array.ctypes.data, address, array.nbytes, DEVICE_TO_HOST)
        self.synchronize()

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self._call("cudaMemcpyAsync", ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), kind,
                   ctypes.c_void_p(self.stream))

    def copy(self, target: int, source: int, extent: tuple[int, int, int], target_pitch: tuple[int, int],
             source_pitch: tuple[int, int]) -> None:
        """See `device.Device.copy`."""
        width, height, depth = extent
        parameters = _Copy3D(
            source=_Pitched(source, source_pitch[0], width, source_pitch[1]),
            target=_Pitched(target, target_pitch[0], width, target_pitch[1]),
            extent=_Position(width, height, depth), kind=DEVICE_TO_DEVICE,
        )
        self._call("cudaMemcpy3DAsync", ctypes.byref(parameters), ctypes.c_void_p(self.stream))

    def synchronize(self) -> None:
        """Wait until all that was asked for is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def capture(self, work: Callable[[], bool]) -> int | None:
        """What `work` puts into the stream as a CUDA graph, not run; None if it cannot be captured."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self.synchronize()
        self._call("cudaStreamBeginCapture", ctypes.c_void_p(self.stream), THREAD_LOCAL)
        done = work()
        code = self._library.cudaStreamEndCapture(ctypes.c_void_p(self.stream), ctypes.byref(graph))
        if code != 0 or not done or not graph.value:
            self._library.cudaGetLastError()  # else the next call would report it
            return None
        code = self._library.cudaGraphInstantiateWithFlags(ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        self._call("cudaGraphDestroy", graph)
        return int(ready.value or 0) if code == 0 else None

    def launch(self, graph: int) -> None:
        """Run a captured graph."""
        self._call("cudaGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(self.stream))

    def forget(self, graph: int) -> None:
        """Free a captured graph."""
        self._call("cudaGraphExecDestroy", ctypes.c_void_p(graph))
