"""Tests that share an engine are run in one of pytest-xdist's processes, so that it is made once."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import Command, together


def test_what_is_run_in_one_process() -> None:
    assert together("tests/whisper/test_beam.py::test_x[a::b]") == "tests/whisper/test_beam.py"
    assert together("tests/test_main.py::test_x") == together("tests/test_wheel.py::test_y") == "tiny.en"


def test_a_modules_tests_are_not_divided(python: Command) -> None:
    module = "tests/test_clips.py"  # which is quick
    root = Path(__file__).parents[1]
    done = python("pytest", "-vv", "-p", "no:cacheprovider", "--numprocesses", "2", module, cwd=root)
    assert done.returncode == 0, done.stdout
    found = re.findall(r"^\[(gw\d)\].* PASSED ", done.stdout, re.MULTILINE)
    assert len(found) > 20
    assert len(set(found)) == 1
