"""An interruption that comes while a child is being started is heard when it is known, and ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from whisper_factory import command
from whisper_factory.interruptions import SIGNALS, held_back
from whisper_factory.progress import silent
from whisper_factory.steps import listening

SLEEPER = [sys.executable, "-c", "import time; time.sleep(300)"]


class TooEarly(subprocess.Popen[Any]):
    """A child during whose start this process is interrupted."""

    started: ClassVar[list[subprocess.Popen[Any]]] = []

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.started.append(self)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[Any]]:
    monkeypatch.setattr(TooEarly, "started", [])
    monkeypatch.setattr(subprocess, "Popen", TooEarly)
    return TooEarly.started


def test_it_waits_until_the_block_is_over() -> None:
    before, reached = [signal.getsignal(number) for number in SIGNALS], []

    def work() -> None:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_nothing_comes_where_nothing_came() -> None:
    with held_back():
        pass
    done: list[bool] = []

    def elsewhere() -> None:
        with held_back():
            done.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done


def test_a_child_that_is_just_being_started_is_ended(interrupted: list[subprocess.Popen[Any]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        listening.follow([SLEEPER, SLEEPER], re.compile("x"), silent, "clips")
    (child,) = interrupted
    assert child.returncode == -signal.SIGKILL


def test_so_is_a_program(interrupted: list[subprocess.Popen[Any]], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        command.run(SLEEPER, tmp_path / "log")
    (child,) = interrupted
    assert child.returncode == -signal.SIGTERM
