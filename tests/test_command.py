"""Running an external program: every way it can end, what it said, and what it cost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests import processes
from whisper_factory import command
from whisper_factory.command import Finished


def python(code: str, tmp_path: Path, *memory_words: str) -> tuple[Finished, list[str], str]:
    """Run a program; how it ended, the lines that were passed on, the log."""
    lines: list[str] = []
    done = command.run([sys.executable, "-c", code], tmp_path / "log", lines.append, memory_words=memory_words)
    return done, lines, (tmp_path / "log").read_text(encoding="utf-8")


def test_lines_are_passed_on_as_they_come_and_kept(tmp_path: Path) -> None:
    code = ("import sys\nprint('one', flush=True)\nprint('two', file=sys.stderr, flush=True)\n"
            "print('10 %\\r20 %\\n\\n   three')")
    done, lines, log = python(code, tmp_path)
    assert (done.trouble, done.code) == (None, 0)
    assert lines == ["one", "two", "10 %", "20 %", "   three"]
    assert done.last_lines == ["one", "two", "10 %", "20 %", "three"]
    assert log == "one\ntwo\n10 %\n20 %\n\n   three\n"


def test_a_program_that_fails(tmp_path: Path) -> None:
    done, _, _ = python("for i in range(9): print(i)\nraise SystemExit(3)", tmp_path)
    assert (done.trouble, done.code, done.ending) == ("failed", 3, "exit code 3")
    assert done.last_lines == ["4", "5", "6", "7", "8"]


@pytest.mark.parametrize("words", [["no-such-program-at-all"], [__file__]])
def test_a_program_that_cannot_be_started(words: list[str], tmp_path: Path) -> None:
    done = command.run(words, tmp_path / "log")
    assert (done.trouble, done.code, done.peak_bytes) == ("missing", None, 0)
    assert words[0] in done.last_lines[0]
    assert words[0] in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize(("number", "trouble"), [("SIGKILL", "memory"), ("SIGSEGV", "killed"), ("SIGTERM", "killed")])
def test_a_program_that_is_killed(number: str, trouble: str, tmp_path: Path) -> None:
    """SIGKILL that nobody here sent is the kernel's, when memory runs out."""
    code = f"import os, signal; print('working', flush=True); os.kill(os.getpid(), signal.{number})"
    done, _, _ = python(code, tmp_path)
    assert (done.trouble, done.ending, done.last_lines) == (trouble, f"killed by {number}", ["working"])
    through_a_shell = command.run(["bash", "-c", f"kill -{number} $$ & wait; exit {128 + signal.Signals[number]}"],
                                  tmp_path / "log")
    assert through_a_shell.trouble == trouble


@pytest.mark.parametrize("line", ["[E] Error Code 2: OutOfMemory (no further information)", "CUDA out of memory.",
                                  "terminate called after throwing 'std::bad_alloc'", "MemoryError",
                                  "[TRT] Could NOT find a tactic"])
def test_a_program_that_says_memory_ran_out(line: str, tmp_path: Path) -> None:
    done, _, _ = python(f"print({line!r})\nfor i in range(50): print(i)\nraise SystemExit(1)", tmp_path, "not find a")
    assert (done.trouble, done.code) == ("memory", 1)
    fine, _, _ = python(f"print({line!r})", tmp_path, "not find a")
    assert fine.trouble is None


def test_time_and_memory_are_the_programs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its children's: a parent of almost nothing, a child of 200 MB."""
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    child = "import time; begun = time.monotonic(); block = b'x' * 200_000_000"
    lived = "print(time.monotonic() - begun)"
    before = time.monotonic()
    done = command.run([sys.executable, "-c", parent,
                        f"{child}\n{processes.until_seen(monkeypatch, tmp_path, 200e6)}{lived}"], tmp_path / "log")
    assert 200e6 < done.peak_bytes < 300e6
    assert float(done.last_lines[0]) - 0.001 < done.seconds < time.monotonic() - before + 0.001
    (tmp_path / "seen").unlink()
    idle, _, _ = python(processes.until_seen(monkeypatch, tmp_path, 1e6), tmp_path)
    assert 0 < idle.peak_bytes < 60e6


def test_an_interruption_ends_the_program_and_its_children(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    code = (f"import subprocess, sys, pathlib\nchild = subprocess.Popen(['sleep', '600'])\n"
            f"pathlib.Path({str(marker)!r}).write_text(str(child.pid))\nprint('ready', flush=True)\nchild.wait()")

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        command.run([sys.executable, "-c", code], tmp_path / "log", interrupt)
    assert processes.ended(int(marker.read_text(encoding="ascii")))
    assert threading.active_count() == before


def test_a_child_left_behind_does_not_hold_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GRACE_SECONDS", 0.3)
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    done, lines, _ = python(code, tmp_path)
    assert done.trouble is None
    assert done.seconds < 300, "less than the child sleeps"
    assert processes.ended(int(lines[0]))


def test_where_it_runs(tmp_path: Path) -> None:
    lines: list[str] = []
    command.run(["pwd", "-P"], tmp_path / "log", lines.append, cwd=tmp_path)
    assert lines == [os.path.realpath(tmp_path)]
