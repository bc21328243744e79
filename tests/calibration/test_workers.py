"""Work that waits for nothing gives way to work that is waited for."""

from __future__ import annotations

import threading
import time

import pytest

from whisper_factory.calibration.workers import LATER, Workers


def test_results_come_in_order() -> None:
    with Workers() as workers:
        assert list(workers.map(lambda number: time.sleep(0.002 * (5 - number)) or number, range(5))) == [0, 1, 2, 3, 4]


def test_what_can_wait_is_done_after_what_was_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_factory.threads.MOST", 1)
    done, held = list[str](), threading.Event()
    with Workers() as workers:
        workers.start(held.wait)
        last = workers.start(lambda: done.append("later"), LATER)
        first = workers.start(lambda: done.append("now"))
        held.set()
        last.result(10)
        first.result(10)
    assert done == ["now", "later"]


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    with Workers() as workers, pytest.raises(ZeroDivisionError):
        list(workers.map(lambda number: 1 / number, [2, 1, 0, 3]))


def test_what_was_not_begun_is_left_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_factory.threads.MOST", 1)
    done, begun = list[int](), threading.Event()

    def until_it_closes() -> None:
        begun.set()
        while not workers._closing:
            time.sleep(0.001)

    with Workers() as workers:
        workers.start(until_it_closes)
        left = workers.start(lambda: done.append(1), LATER)
        assert begun.wait(60)
    assert not done
    assert left.cancelled(), "who waits for it is told"


def test_what_nobody_wants_any_more_is_left_undone_and_harms_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_factory.threads.MOST", 1)
    done, held = list[str](), threading.Event()
    with Workers() as workers:
        workers.start(lambda: held.wait(10))
        assert workers.start(lambda: done.append("unwanted")).cancel()
        held.set()
        workers.start(lambda: done.append("wanted")).result(10)
    assert done == ["wanted"]
