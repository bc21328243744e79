"""An interruption that comes while a child is being started is heard when it is known, and ends it.

Signals are a process's, and Python hears them in its main thread: each test is a process of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from whisper_factory import command
from whisper_factory.interruptions import SIGNALS, held_back
from whisper_factory.progress import silent
from whisper_factory.steps import children

SLEEPER = [sys.executable, "-c", "import time; time.sleep(300)"]
SECONDS = 120  # that a test may take


class TooEarly(subprocess.Popen[Any]):
    """A child during whose start this process is interrupted."""

    started: ClassVar[list[subprocess.Popen[Any]]] = []

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.started.append(self)
        os.kill(os.getpid(), signal.SIGINT)


def it_waits_until_the_block_is_over() -> None:
    before, reached = [signal.getsignal(number) for number in SIGNALS], []
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")
    except KeyboardInterrupt:
        reached.append("interrupted")
    assert reached == ["the end", "interrupted"]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def nothing_comes_where_nothing_came() -> None:
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


def a_child_that_is_just_being_started_is_ended() -> None:
    subprocess.Popen = TooEarly  # type: ignore[misc]
    try:
        children.follow([SLEEPER, SLEEPER], re.compile("x"), silent, "clips")
    except KeyboardInterrupt:
        assert [child.returncode for child in TooEarly.started] == [-signal.SIGKILL]
        return
    raise AssertionError("not interrupted")


def so_is_a_program() -> None:
    subprocess.Popen = TooEarly  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        try:
            command.run(SLEEPER, Path(folder) / "log")
        except KeyboardInterrupt:
            assert [child.returncode for child in TooEarly.started] == [-signal.SIGTERM]
            return
    raise AssertionError("not interrupted")


CASES = (it_waits_until_the_block_is_over, nothing_comes_where_nothing_came,
         a_child_that_is_just_being_started_is_ended, so_is_a_program)


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_in_a_process_of_its_own(case: str) -> None:
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background ignores it
    code = (f"{heard}; import sys; sys.path[:] = {sys.path!r}; from tests import test_interruptions; "
            f"test_interruptions.{case}(); print('done')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
