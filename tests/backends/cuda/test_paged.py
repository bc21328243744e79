"""Memory that comes with rows and windows and goes with them, behind addresses that stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.backends.cuda.host_pages import HostVirtual, PickyHost
from tests.backends.onnxruntime_cuda.making import PAGED, declared
from whisper_factory.backends.cuda.cudart import FULL
from whisper_factory.backends.cuda.device import Device, Tensor
from whisper_factory.backends.cuda.kvcache import KVCaches
from whisper_factory.backends.cuda.layout import cross_layout, self_layout, sizes_of
from whisper_factory.backends.cuda.paged import PagedCaches
from whisper_factory.engine_spec import EngineSpec, KVCache
from whisper_factory.errors import UserError


def paged(spec: EngineSpec | None = None, most: int = 1 << 30, left: int = 0) -> tuple[PagedCaches, HostVirtual]:
    virtual = HostVirtual(most=most)
    return PagedCaches(spec or declared(kv_cache=PAGED), PickyHost(virtual), virtual, left), virtual


def needed(spec: EngineSpec, granule: int, rows: int, windows: int, length: int) -> int:
    """Granules of so many rows and windows."""
    sizes = sizes_of(spec)
    return (len(self_layout(spec, granule).behind(rows * sizes.row))
            + len(cross_layout(spec, granule).behind(windows * length * sizes.position)))


def put(device: Device, tensors: dict[str, Tensor], length: int | None = None) -> dict[str, np.ndarray]:
    """Numbers into tensors, the first `length` tokens of each row."""
    rng, held = np.random.default_rng(1), {}
    for name, tensor in tensors.items():
        held[name] = rng.standard_normal(tensor.shape).astype(tensor.dtype)[:, :, :length]
        whole = np.zeros(tensor.shape, tensor.dtype)
        whole[:, :, : held[name].shape[2]] = held[name]
        device.upload(tensor.address, whole)
    return held


def read(device: Device, tensor: Tensor) -> np.ndarray:
    found = np.empty(tensor.shape, tensor.dtype)
    device.download(tensor.address, found)
    return found


def test_memory_follows_rows_and_windows() -> None:
    """So much as the layout says at every length, nothing before and after, and what is there stays."""
    caches, virtual = paged()
    assert len(virtual.there) == 0
    for rows, windows, length in ((1, 1, 400), (4, 4, 425), (12, 4, 425), (3, 1, 425)):
        caches.hold(rows, windows, length)
        assert len(virtual.there) == len(virtual.mapped) == needed(caches._spec, virtual.granule, rows, windows, length)
        for tensor in (*caches.past(rows).values(), *caches.cross(windows, length).values()):
            read(caches._device, tensor)  # all of it can be touched
    held = put(caches._device, caches.past(3))
    caches.hold(12, 1, 425)
    for name, tensor in caches.past(12).items():
        found = read(caches._device, tensor)
        assert np.array_equal(found[:3], held[name])
        first = -(-3 * sizes_of(caches._spec).row // virtual.granule) * virtual.granule // sizes_of(caches._spec).row
        assert not found[first + 1:].any()  # zeros, where nothing was
    caches.hold(0, 0, 0)
    assert not virtual.there
    assert not virtual.mapped
    assert caches.granules.taken == 0


def test_what_a_short_turn_takes_stays_where_it_is() -> None:
    caches, virtual = paged(left=60)
    caches.hold(1, 1, 100)
    assert 0 < len(virtual.there) <= 60
    before = list(virtual.mapped)
    caches.hold(0, 0, 0)
    caches.hold(1, 1, 100)
    assert list(virtual.mapped) == before
    assert virtual.calls.count("unmap") == 0
    caches.hold(4, 4, 425)
    assert len(virtual.there) > 60
    caches.hold(0, 0, 0)
    assert not virtual.there


def test_batches_of_one_request_find_memory_at_hand() -> None:
    caches, virtual = paged()
    with caches.keeping():
        caches.hold(4, 4, 425)
        maps = virtual.calls.count("map")
        for rows in (2, 0, 4, 0):
            caches.hold(rows, rows, 425)
        assert virtual.calls.count("map") == maps
        assert "unmap" not in virtual.calls
        assert caches.rows_in_use == 0
    assert not virtual.there


@pytest.mark.parametrize("keeping", [True, False])
def test_a_full_device_is_one_line_and_changes_nothing(keeping: bool) -> None:
    spec = declared(kv_cache=PAGED)
    most = needed(spec, 4096, 4, 2, 425)
    caches, virtual = paged(spec, most=most)
    caches.hold(2, 2, 425)
    held = put(caches._device, caches.cross(2, 425))
    there = set(virtual.there)
    with pytest.raises(UserError, match="the GPU's memory is full; stop what else uses it, or build a smaller"):
        caches.hold(12, 1, 425)
    assert virtual.there == there
    assert caches.granules.taken == len(there)
    assert all(np.array_equal(read(caches._device, tensor), held[name])
               for name, tensor in caches.cross(2, 425).items())
    caches.hold(4, 2, 425)
    assert len(virtual.there) == most
    if keeping:
        with caches.keeping():  # what is kept is given back where it is wanted elsewhere
            caches.hold(0, 0, 0)
            assert len(virtual.there) == most
            caches.hold(1, 2, 450)
            assert len(virtual.there) == needed(spec, 4096, 1, 2, 450) <= most
    caches.hold(0, 0, 0)
    assert not virtual.there


def test_a_driver_that_maps_no_more_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was out of memory for its own tables, after some had been mapped."""
    caches, virtual = paged()
    caches.hold(1, 2, 425)
    there, mapped, put_behind, left = set(virtual.there), set(virtual.mapped), virtual.map, [3]

    def refuse(address: int, granules: Sequence[int]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise UserError(FULL)
        put_behind(address, granules)

    monkeypatch.setattr(virtual, "map", refuse)
    with pytest.raises(UserError, match="the GPU's memory is full"):
        caches.hold(12, 4, 425)
    assert (virtual.there, set(virtual.mapped)) == (there, mapped)
    assert caches.granules.taken == len(there)


def test_a_pool_that_is_used_up_says_so() -> None:
    """Three pages of eight tokens a row, of 24: twelve are four rows."""
    caches, virtual = paged(declared(kv_cache=KVCache("paged", 8, 14)))
    assert [caches.room(4, beams) for beams in (1, 2, 3)] == [4, 2, 1]
    assert caches.room(1, 2) == 1
    caches.hold(2, 4, 400)
    there = len(virtual.there)
    with pytest.raises(UserError, match=r"the KV cache is full: 6 of 14 pages \(kv_cache.max_pages\) are in use, 9 "
                                        r"more are needed, .* \(36 are enough for everything\)"):
        caches.hold(5, 4, 400)
    assert len(virtual.there) == there


def test_to_warm_up_one_granule_is_enough() -> None:
    caches, virtual = paged(most=1, left=1000)
    with caches.warming_up():
        caches.hold(12, 4, 475)
        for tensor in caches.past(12).values():
            put(caches._device, {"past": tensor})
        assert len(virtual.there) == 1
        caches.hold(0, 0, 0)
    assert not virtual.there
    assert not virtual.mapped
    assert caches.granules.taken == caches.granules.most == 0


SELECTIONS: list[tuple[int, list[int]]] = [
    (4, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]), (12, [2, 0, 1, 3, 3, 3, 7, 8, 6, 11, 10, 9]), (12, [4, 5, 3, 9, 9, 10]),
    (4, [3, 1]), (2, [1, 0]), (12, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
]


@pytest.mark.parametrize(("rows", "sources"), SELECTIONS)
def test_rows_move_as_in_a_contiguous_cache(rows: int, sources: list[int]) -> None:
    """With memory for them alone, so with holes between tensors, or with all of it."""
    found: list[Any] = []
    for caches in (paged()[0], KVCaches(declared(), PickyHost(HostVirtual()))):
        caches.hold(max(rows, len(sources)), 1, 400)
        put(caches._device, caches.past(rows), 9)
        caches.select_rows(sources, 9)
        found.append([read(caches._device, tensor)[:, :, :9] for tensor in caches.past(len(sources)).values()])
    for one, other in zip(*found, strict=True):
        assert one.any()
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("windows", "sources"), [(4, [1, 3]), (2, [1, 0]), (4, [2, 3]), (3, [1, 2]), (4, [3, 0, 2])])
def test_windows_move_as_in_a_contiguous_cache(windows: int, sources: list[int]) -> None:
    found: list[Any] = []
    for caches in (paged()[0], KVCaches(declared(), PickyHost(HostVirtual()))):
        caches.hold(1, windows, 433)
        put(caches._device, caches.cross(windows, 433))
        caches.select_windows(sources, 433)
        found.append([read(caches._device, tensor) for tensor in caches.cross(len(sources), 433).values()])
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)
