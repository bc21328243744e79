"""KV caches whose addresses are kept for their capacity, and whose memory comes with rows and windows and goes with
them: kv_cache=paged. Bound once all the same, and every kernel is the same.

Rows come from a pool of kv_cache.max_pages, each with the pages of its longest (layout.py says why).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from whisper_factory.backends.cuda.cudart import Cuda
from whisper_factory.backends.cuda.device import Device
from whisper_factory.backends.cuda.granules import Granules, Region
from whisper_factory.backends.cuda.kvcache import KVCaches
from whisper_factory.backends.cuda.layout import (
    Layout,
    cross_layout,
    most_pages,
    pool_rows,
    row_pages,
    self_layout,
)
from whisper_factory.backends.cuda.vmm import CudaVirtual, Virtual
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import UserError

LEFT = 8  # granules that stay where they are when rows go: a turn of 5 ms would take 0.6 ms longer for 6 MB


def on_gpu(spec: EngineSpec, cuda: Cuda) -> KVCaches:
    """An engine's caches, in its mode.

    Raises:
        UserError: the GPU's memory is full.
        EnvironmentFault: what a paged cache needs of the driver is not there.
    """
    return PagedCaches(spec, cuda, CudaVirtual(cuda)) if spec.kv_cache.mode == "paged" else KVCaches(spec, cuda)


class PagedCaches(KVCaches):
    """Both caches of an engine, as large as what is in them."""

    def __init__(self, spec: EngineSpec, device: Device, virtual: Virtual, left: int = LEFT) -> None:
        """
        Args:
            left: granules that stay when they are not used any more, if there are no more.
        """
        self._spec, self._left, self.granules = spec, left, Granules(virtual)
        self.rows_in_use, self._used, self._keeping = 0, (0, 0, 0), False
        super().__init__(spec, device)

    def _places(self) -> tuple[int, int, int]:
        granule = self.granules.virtual.granule
        aside = self._tensors * max(self._row, self._window)
        own, other = self_layout(self._spec, granule), cross_layout(self._spec, granule)
        self._regions = [Region(each, self.granules) for each in (own, other, Layout(1, aside, aside, granule))]
        self._past_step, self._cross_step = own.step, other.step
        past, cross, aside = (region.address for region in self._regions)
        return past, cross, aside

    def hold(self, rows: int, windows: int, length: int) -> None:
        """See `KVCaches.hold`.

        Raises:
            UserError: the pool's pages or the device's memory are used up; all is as it was.
        """
        if rows > pool_rows(self._spec):
            raise pool_full(self._spec, self.rows_in_use, rows)
        used = (rows * self._row, windows * self._heads * length * self._token, 0)
        try:
            self._grow(used)
        except UserError:  # what is there and not used may be what is missing
            self._give([*map(max, used, self._used)])
            self._grow(used)
        self.rows_in_use, self._used = rows, used
        self._trim()

    def _grow(self, used: Sequence[int]) -> None:
        before = [region.held for region in self._regions]
        try:
            for region, size in zip(self._regions, used, strict=True):
                region.grow(size)
        except BaseException:
            self._shrink([region.held - held for region, held in zip(self._regions, before, strict=True)])
            raise

    def _trim(self) -> None:
        if not self._keeping and sum(len(region.held) for region in self._regions) > self._left:
            self._give(self._used)

    def _give(self, used: Sequence[int]) -> None:
        """Give back what is not used."""
        self._shrink([region.surplus(size) for region, size in zip(self._regions, used, strict=True)])

    def _shrink(self, surplus: Sequence[Collection[int]]) -> None:
        if any(surplus):
            self.granules.virtual.synchronize()  # until nothing uses it any more
        for region, numbers in zip(self._regions, surplus, strict=True):
            region.shrink(numbers)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """See `KVCaches.keeping`."""
        self._keeping = True
        try:
            yield
        finally:
            self._keeping = False
            self._trim()

    def room(self, windows: int, beams: int) -> int:
        """See `KVCaches.room`."""
        return min(windows, pool_rows(self._spec) // beams)

    @contextmanager
    def warming_up(self) -> Iterator[None]:
        """See `KVCaches.warming_up`: one granule stands for all, so that an engine can be loaded where there is memory
        for what will be heard, if not for the longest."""
        with self.granules.one_for_all():
            try:
                yield
            finally:
                self._shrink([region.held for region in self._regions])

    def _copy(self, target: int, source: int, extent: tuple[int, int], target_pitch: tuple[int, int],
              source_pitch: tuple[int, int]) -> None:
        """One tensor after the other where some of the addresses between have no memory: CUDA copies no box over such.
        """
        if self._unbroken(target) and self._unbroken(source):
            super()._copy(target, source, extent, target_pitch, source_pitch)
            return
        for tensor in range(self._tensors):
            self._device.copy(target + tensor * target_pitch[0] * target_pitch[1],
                              source + tensor * source_pitch[0] * source_pitch[1], (*extent, 1), target_pitch,
                              source_pitch)

    def _unbroken(self, address: int) -> bool:
        """Whether all of the tensors in a region have memory, with what lies between them."""
        *caches, aside = self._regions
        found = next((region for region in caches if 0 <= address - region.address < region.layout.size), aside)
        return found is aside or len(found.held) * found.layout.granule == found.layout.size

    def _need_aside(self, each: int) -> None:
        self._regions[2].grow(self._tensors * each)


def pool_full(spec: EngineSpec, held: int, rows: int) -> UserError:
    """The pool has no pages for `rows` rows, of which `held` are there."""
    pages = row_pages(spec)
    return UserError(f"the KV cache is full: {held * pages} of {spec.kv_cache.max_pages} pages (kv_cache.max_pages) "
                     f"are in use, {(rows - held) * pages} more are needed, and no sequence can end before it has "
                     f"them; decode fewer windows or beams at once, or build with more kv_cache.max_pages "
                     f"({most_pages(spec)} are enough for everything)")
