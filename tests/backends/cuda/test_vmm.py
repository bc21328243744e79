"""What is asked of the driver, and what becomes of its refusals."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from whisper_factory.backends.cuda import vmm
from whisper_factory.backends.cuda.vmm import CudaVirtual
from whisper_factory.errors import EnvironmentFault, UserError

GRANULE = 2 << 20


class Driver:
    """libcuda, as far as it is asked: every call is noted, and one can be refused."""

    def __init__(self, supported: int = 1) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refused: dict[str, tuple[int, int]] = {}  # name -> after so many calls of it, with this code
        self._supported = supported

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append((name, *(getattr(one, "value", one) for one in arguments)))
            fill = {"cuDeviceGetAttribute": self._supported, "cuMemGetAllocationGranularity": GRANULE,
                    "cuMemAddressReserve": 1 << 40, "cuMemCreate": 77}
            if name in fill:
                arguments[0]._obj.value = fill[name]
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"not today"
            after, code = self.refused.get(name, (1 << 30, 0))
            return code if self.names().count(name) > after else 0

        return call

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(vmm, "library", lambda: found)
    return found


def cuda() -> Any:
    """A runtime that notes what is set."""
    made = SimpleNamespace(stream=5, calls=[])
    made.call = lambda name, *arguments: made.calls.append((name, *(getattr(one, "value", one) for one in arguments)))
    return made


def test_memory_is_put_behind_addresses_and_zeros_into_it(driver: Driver) -> None:
    runtime = cuda()
    virtual = CudaVirtual(runtime)
    assert virtual.granule == GRANULE
    address = virtual.reserve(4 * GRANULE)
    assert virtual.create() == 77
    driver.calls.clear()
    virtual.map(address, [77, 78])
    virtual.unmap(address, 2)
    virtual.destroy(77)
    assert [(*call[:2], call[2]) for call in driver.calls if call[0] != "cuMemRelease"] == [
        ("cuMemMap", address, GRANULE), ("cuMemMap", address + GRANULE, GRANULE),
        ("cuMemSetAccess", address, 2 * GRANULE), ("cuMemUnmap", address, 2 * GRANULE)]
    assert [call[4] for call in driver.calls if call[0] == "cuMemMap"] == [77, 78]
    assert driver.calls[-1] == ("cuMemRelease", 77)
    assert runtime.calls == [("cudaMemsetAsync", address, 0, 2 * GRANULE, 5)]


def test_structures_are_as_large_as_cudas() -> None:
    assert ctypes.sizeof(vmm._Properties) == 32
    assert vmm._Properties.location.offset == 8
    assert ctypes.sizeof(vmm._Access) == 12


def test_a_full_gpu_is_the_users_to_mend_and_all_else_the_environments(driver: Driver) -> None:
    virtual = CudaVirtual(cuda())
    driver.refused["cuMemCreate"] = (0, 2)
    with pytest.raises(UserError, match=r"^the GPU's memory is full; stop what else uses it"):
        virtual.create()
    driver.refused["cuMemCreate"] = (0, 999)
    with pytest.raises(EnvironmentFault, match=r"^CUDA failed: cuMemCreate: not today \(999\)$"):
        virtual.create()


@pytest.mark.parametrize(("name", "after", "undone"),
                         [("cuMemMap", 2, 2), ("cuMemSetAccess", 0, 3), ("cuMemMap", 0, 0)])
def test_what_was_mapped_before_a_refusal_is_taken_away(driver: Driver, name: str, after: int, undone: int) -> None:
    runtime = cuda()
    virtual = CudaVirtual(runtime)
    driver.refused[name] = (after, 2)
    with pytest.raises(UserError):
        virtual.map(1 << 40, [1, 2, 3])
    away = [call[1:] for call in driver.calls if call[0] == "cuMemUnmap"]
    assert away == ([(1 << 40, undone * GRANULE)] if undone else [])
    assert not runtime.calls


def test_what_this_machine_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmm, "library", lambda: None)
    with pytest.raises(EnvironmentFault, match=r"needs libcuda\.so\.1, which comes with NVIDIA's driver"):
        CudaVirtual(cuda())
    monkeypatch.setattr(vmm, "library", lambda: Driver(supported=0))
    with pytest.raises(EnvironmentFault, match="virtual memory management, and these have not; build with"):
        CudaVirtual(cuda())
