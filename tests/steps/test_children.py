from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import processes
from tests.recorder import Recorder
from whisper_factory.progress import silent
from whisper_factory.steps.children import Children, follow

DONE = re.compile(r"did \d\n")
REPEAT = [sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.readline() or 'nothing\\n')"]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_are_counted_and_the_last_of_the_others_kept() -> None:
    told = Recorder()
    say = "import sys; [sys.stdout.write(line) for line in {lines}]"
    lines = ["did 1\n", "\n", *(f"{number}\n" for number in range(7)), "did 2\n"]
    commands = [python(say.format(lines=spoken)) for spoken in (lines, ["did 3\n", "did 4\n"])]
    assert follow(commands, DONE, told, "things", 4) == (0, ["2", "3", "4", "5", "6"])
    assert told.opened == [(4, "things", 0)]
    assert told.amounts == [1] * 4


def test_the_exit_code_is_of_the_one_that_failed() -> None:
    code, said = follow([python(""), python("raise SystemExit('no')"), python("")], DONE, silent, "things")
    assert (code, said) == (1, ["no"])


def test_one_that_fails_ends_the_others() -> None:
    """They would go on for minutes, for an answer that nobody wants any more."""
    goes_on = "import sys, time\nfor _ in range(600): sys.stdout.write('did 1\\n'); sys.stdout.flush(); time.sleep(0.1)"
    told, started = Recorder(), time.monotonic()
    fails = "import sys; sys.stderr.write('no\\n'); sys.exit(1)"
    assert follow([python(goes_on), python(fails), python(goes_on)], DONE, told, "things") == (1, ["no"])
    assert time.monotonic() - started < 30
    assert sum(told.amounts) < 600


def test_a_second_close_does_nothing() -> None:
    with Children([REPEAT, python("import time; time.sleep(600)")], told=True) as children:
        children.close()
        assert [child.returncode for child in children._children] == [-signal.SIGKILL] * 2


def test_each_is_told_its_own_line_and_one_without_a_line_ends() -> None:
    with Children([REPEAT, REPEAT, REPEAT], told=True) as children:
        children.tell(["one\n", "two\n"])
        code, said = children.follow(DONE, silent, "things")
    assert code == 0
    assert sorted(said) == ["nothing", "one", "two"]


def test_one_that_has_ended_before_it_is_told_says_why() -> None:
    with Children([python("raise SystemExit(3)")], told=True) as children:
        children._children[0].wait()
        children.tell(["too late\n"])
        assert children.follow(DONE, silent, "things") == (3, [])


def test_what_waits_to_be_told_ends_when_this_process_is_gone(tmp_path: Path) -> None:
    """Even if it is killed, and can end nothing itself."""
    waits = "import os, sys; print(os.getpid(), flush=True); sys.stdin.readline()"
    parent = ("import sys, time; from whisper_factory.steps.children import Children; "
              f"children = Children([[sys.executable, '-c', {waits!r}]], told=True); "
              "print(children._said.readline(), flush=True); time.sleep(300)")
    alone = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(python(parent), stdout=subprocess.PIPE, env=alone, cwd=tmp_path) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert not processes.ended(child, within=0)
        process.send_signal(signal.SIGKILL)
    assert processes.ended(child)
