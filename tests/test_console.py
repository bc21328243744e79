from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from whisper_factory import console
from whisper_factory.errors import EnvironmentFault, UserError


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert list(console.chain(one)) == [one, two]


def test_the_error_behind_another_is_the_one_that_counts() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = UserError("the user's")
    assert console.known(outer) is outer.__cause__
    assert console.known(RuntimeError("ours")) is None
    assert console.known(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None  # what we lost is our bug


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EISDIR])
def test_the_machines_trouble_is_exit_4_with_the_file(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, os.strerror(number), "some/file")
    assert console.tell(error) == EnvironmentFault.exit_code
    assert capsys.readouterr().err.startswith(f"error: 'some/file': {os.strerror(number)}")


@pytest.mark.parametrize(("words", "missing"), [((), "hydra"), (("-m", "model=tiny,base"), "filelock")])
def test_a_python_without_our_packages_is_told_what_to_do(words: tuple[str, ...], missing: str, tmp_path: Path) -> None:
    """As in a checkout before anything was installed."""
    done = subprocess.run([sys.executable, "-S", "-m", "whisper_factory", *words], cwd=tmp_path, capture_output=True,
                          text=True, check=False, env={"PYTHONPATH": str(Path(console.__file__).parents[1])})
    assert done.returncode == EnvironmentFault.exit_code, done.stderr
    assert done.stderr.startswith(f"error: {missing} is not installed for {sys.executable}; pip install 'whisper-f")
    assert done.stderr.count("\n") == 1


def test_a_bug_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("in\nlines")
    assert console.tell(caught.value) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ZeroDivisionError at test_console.py:" in said


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m whisper_factory model=tiny.en dry_run=true store.path={tmp_path} | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False,
                          cwd=tmp_path)
    assert done.returncode in (0, console.PIPE_CLOSED)  # the reader may be late
    assert done.stderr == ""


def test_termination_ends_the_measuring_child_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "whisper_factory", "model=tiny.en", f"store.path={tmp_path / 'store'}"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        children: list[Path] = []
        while process.poll() is None and not children:
            time.sleep(0.05)
            children = measuring(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == console.TERMINATED
    assert children
    assert not any(child.exists() for child in children)


def measuring(process: int) -> list[Path]:
    """Which of its children measure; others are there for a moment, when libraries look at the machine."""
    with suppress(OSError):
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return [child for child in map(Path("/proc").joinpath, children)
                if b"measure.when_told" in (child / "cmdline").read_bytes()]
    return []
