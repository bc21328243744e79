"""Memory that comes and goes behind addresses that stay: a paged KV cache's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from whisper_factory.backends.cuda.layout import Layout, runs
from whisper_factory.backends.cuda.vmm import Virtual


class Granules:
    """A device's memory, taken and given back by granules."""

    def __init__(self, virtual: Virtual) -> None:
        self.virtual = virtual
        self.taken = self.most = 0  # now, and at the most that there ever were
        self._for_all: int | None = None

    def take(self, count: int) -> list[int]:
        """So many granules.

        Raises:
            UserError: the device's memory is full; none is taken.
        """
        if self._for_all is not None:
            return [self._for_all] * count
        found: list[int] = []
        try:
            while len(found) < count:
                found.append(self.virtual.create())
        except BaseException:
            for granule in found:
                self.virtual.destroy(granule)
            raise
        self.taken += count
        self.most = max(self.most, self.taken)
        return found

    def give(self, granules: Iterable[int]) -> None:
        """Give granules back, behind no address any more."""
        for granule in granules:
            if granule != self._for_all:
                self.virtual.destroy(granule)
                self.taken -= 1

    @contextmanager
    def one_for_all(self) -> Iterator[None]:
        """Meanwhile one granule is behind all addresses that ask for memory: for work whose results nobody wants. All
        of it must have been let go at the end."""
        self._for_all = self.virtual.create()
        try:
            yield
        finally:
            self.virtual.destroy(self._for_all)
            self._for_all = None


class Region:
    """A layout's addresses, and the memory behind them."""

    def __init__(self, layout: Layout, granules: Granules) -> None:
        self.layout, self._granules = layout, granules
        self.address = granules.virtual.reserve(layout.size)
        self._held: dict[int, int] = {}  # numbers of the granules' places -> what is mapped there

    @property
    def held(self) -> set[int]:
        """Numbers of the granules' places that have memory."""
        return set(self._held)

    def grow(self, used: int) -> None:
        """Have memory behind the first `used` bytes of every tensor; what is there stays.

        Raises:
            UserError: the device's memory is full; all is as it was.
        """
        wanted, virtual = runs(self.layout.behind(used) - self._held.keys()), self._granules.virtual
        taken = self._granules.take(sum(map(len, wanted)))
        try:
            for run in wanted:
                found = taken[: len(run)]
                virtual.map(self._place(run.start), found)
                del taken[: len(run)]
                self._held.update(zip(run, found, strict=True))
        except BaseException:
            self._granules.give(taken)
            raise

    def surplus(self, used: int) -> set[int]:
        """Granules that hold nothing of the first `used` bytes of every tensor."""
        return self._held.keys() - self.layout.behind(used)

    def shrink(self, surplus: Iterable[int]) -> None:
        """Give such granules back; no work that uses them may be under way."""
        for run in runs(surplus):
            self._granules.virtual.unmap(self._place(run.start), len(run))
            self._granules.give(self._held.pop(number) for number in run)

    def _place(self, number: int) -> int:
        return self.address + number * self.layout.granule
