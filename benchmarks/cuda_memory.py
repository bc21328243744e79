"""What the TensorRT runtime does with CUDA, done on a GPU and compared with the same in this process's memory.

    python benchmarks/cuda_memory.py

Needs a GPU and libcudart, no TensorRT: allocation, copies of boxes, the KV caches' moves, and a captured CUDA graph.
"""

from __future__ import annotations

import numpy as np

from tests.backends.tensorrt.making import declared
from whisper_factory.backends.cuda import cudart
from whisper_factory.backends.cuda.cudart import DEVICE_TO_DEVICE, Cuda
from whisper_factory.backends.cuda.device import Device, Host, Tensor
from whisper_factory.backends.tensorrt.kvcache import AppendedCaches
from whisper_factory.errors import UserError


def moved(device: Device) -> list[np.ndarray]:
    """Everything that the caches of an engine hold after tokens were appended, and rows and windows moved."""
    caches, rng = AppendedCaches(declared(), device), np.random.default_rng(7)

    def fill(tensors: dict[str, Tensor]) -> None:
        for tensor in tensors.values():
            device.upload(tensor.address, rng.standard_normal(tensor.shape).astype(tensor.dtype))

    fill(caches.cross(2, 450))
    for count, past in ((4, 0), (1, 4), (1, 5)):
        fill(caches.new(2, count))
        caches.append(2, count, past)
    caches.select_rows([0, 0, 0, 1, 1, 1], 6)
    caches.select_rows([2, 0, 1, 4, 3, 5], 6)
    caches.select_windows([1, 0], 450)
    held = []
    for tensor in (*caches.past(6).values(), *caches.cross(2, 450).values()):
        held.append(np.empty(tensor.shape, tensor.dtype))
        device.download(tensor.address, held[-1])
    return held


def captured(device: Cuda) -> None:
    """A graph does nothing while it is captured, and its work each time it is launched."""
    one, two = (np.arange(1000, dtype=np.int64) + offset for offset in (0, 5))
    source, target, found = device.allocate(8000), device.allocate(8000), np.empty(1000, np.int64)
    device.upload(source, one)

    def copy() -> bool:
        device._copy(target, source, 8000, DEVICE_TO_DEVICE)
        return True

    graph = device.capture(copy)
    assert graph is not None
    device.download(target, found)
    assert not found.any()
    for data in (one, two):
        device.upload(source, data)
        device.launch(graph)
        device.download(target, found)
        assert np.array_equal(found, data)
    device.forget(graph)
    assert device.capture(lambda: copy() and False) is None
    device.synchronize()


def main() -> None:
    """Run the command."""
    device = Cuda()
    assert all(np.array_equal(one, other) for one, other in zip(moved(device), moved(Host()), strict=True))
    captured(device)
    try:
        device.allocate(1 << 45)
    except UserError as error:
        print(f"too much memory: {error}")
    captured(device)
    print(f"compute capability {cudart.compute_capability()}: as in this process's memory")


if __name__ == "__main__":
    main()
