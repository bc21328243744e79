"""How many threads there may be, and work done ahead by a few; NumPy lets go of the interpreter's lock where it
matters."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future
    from threading import Event

T = TypeVar("T")
R = TypeVar("R")
W = TypeVar("W")

MOST = 4  # threads; what they feed is written by one
BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def import_numpy() -> None:
    """Import NumPy for a command: with one thread for its BLAS, unless the user says how many.

    OpenBLAS's own threads wait busily from the moment they are there, a tenth of a second on each processor, for
    products that are small here, or shared by threads of ours. How many it has it asks but once.
    """
    ours = BLAS_THREADS not in os.environ
    if ours:
        os.environ[BLAS_THREADS] = "1"
    try:
        import numpy  # noqa: F401 - for what it reads
    finally:
        if ours:  # it is not for the programs that a command starts
            del os.environ[BLAS_THREADS]


@contextmanager
def mapping(threads: int) -> Iterator[Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]]:
    """While it is open: what maps a function over items as `map` does, on so many threads, all items at once."""
    if threads < 2:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        yield pool.map


def physical_cores() -> int:
    """Physical cores among the processors that this process may run on: hyperthreads of one core count once."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii"))
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def helpers() -> int:
    """How many threads work for one that uses what they do: as many as this process has processors, MOST at most."""
    return min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The function's results, in order, each computed while those before it are used; few are held at once."""
    from concurrent.futures import ThreadPoolExecutor  # here: a plan counts cores, and need not wait for it

    workers = helpers()
    with ThreadPoolExecutor(workers) as pool:
        yield from in_order(lambda item: pool.submit(function, item), items, workers)


def in_order(start: Callable[[T], Future[R]], items: Iterable[T], most: int) -> Iterator[R]:
    """The results of what is started for each item, in order; `most` are on their way while one is used."""
    coming: deque[Future[R]] = deque()
    try:
        for item in items:
            coming.append(start(item))
            if len(coming) > most:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:  # the one who asked has stopped, or a result was an error
        for future in coming:
            future.cancel()


class Stopped(Exception):
    """Work was given up, as other work beside it has failed or nobody waits for it any more."""


def shared(work: Callable[[W, T], None], workers: Sequence[W], items: Iterable[T], stopped: Event) -> None:
    """Do work(worker, item) for every item. Each worker has a thread of its own, and the next item when it is free.

    Args:
        stopped: set when work has failed, or who waits for it was interrupted: what is still being done may then end by
            `Stopped`, and is waited for. It is set at the end in any case.

    Raises:
        Exception: of the work that failed first.
    """
    from concurrent.futures import ThreadPoolExecutor, wait

    waiting = deque(items)
    failures: list[BaseException] = []

    def follow(worker: W) -> None:
        while waiting and not stopped.is_set():
            try:
                item = waiting.popleft()
            except IndexError:  # another was quicker
                return
            try:
                work(worker, item)
            except BaseException as error:  # all there is: it is raised by who waits
                failures.append(error)
                stopped.set()

    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            wait([pool.submit(follow, worker) for worker in workers])
        finally:
            stopped.set()
    if failures:
        raise failures[0]
