"""A command on a pseudo-terminal, and what a user would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LINES, COLUMNS = 24, 100
TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(.)", re.DOTALL)
ERASED = re.compile(r"\r(\x1b\[1A)?\x1b\[2K")  # what comes before a bar is drawn anew
FROM_ITS_TERMINAL = 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>"$tty"'  # which becomes the controlling one


class Terminal:
    """A running command, and all that it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int, line: int) -> None:
        self.process, self.written = process, ""
        self._controller, self._line = controller, line

    def read(self) -> Iterator[str]:
        """All that was written so far, each time there is more, until the command has ended."""
        raw = b""
        while True:
            ended = self.process.poll() is not None
            while select.select([self._controller], [], [], 0 if ended else 0.05)[0]:
                raw += os.read(self._controller, 1 << 16)
                self.written = raw.decode(errors="replace")
                yield self.written
            if ended:
                return

    def end(self) -> int:
        """Read to the end; the exit code."""
        for _ in self.read():
            pass
        return self.process.wait()

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._controller, keys.encode())

    def modes(self) -> list[Any]:
        """Of the terminal, as termios gives them."""
        return termios.tcgetattr(self._line)

    def frames(self) -> list[list[str]]:
        """The screen each time before something of it was erased."""
        *before, _ = _screens(self.written, {match.start() for match in ERASED.finditer(self.written)})
        return before


@contextmanager
def on_terminal(*arguments: object, cwd: Path, **environment: str) -> Iterator[Terminal]:
    """Run `python ARGUMENTS` as the foreground job of a new terminal."""
    controller, line = pty.openpty()
    fcntl.ioctl(line, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = ["sh", "-c", FROM_ITS_TERMINAL, "sh", os.ttyname(line), sys.executable, *map(str, arguments)]
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    variables = {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm-256color"}
    with subprocess.Popen(command, cwd=cwd, start_new_session=True, env={**variables, **environment},
                          preexec_fn=_hear_interrupts) as job:
        try:
            yield Terminal(job, controller, line)
        finally:
            job.kill()
            job.wait()
            os.close(controller)
            os.close(line)


def screen(written: str) -> list[str]:
    """The lines that text leaves on a terminal, without trailing blanks. Knows what a bar of one line uses."""
    return list(_screens(written, set()))[-1]


def _screens(written: str, places: Set[int]) -> Iterator[list[str]]:
    """The screen when text has been written up to each of these places, and at its end."""
    lines, row, column = [""], 0, 0
    for match in TOKEN.finditer(written):
        if match.start() in places:
            yield [line.rstrip() for line in lines]
        number, command, letter = match.groups()
        if command == "K":
            lines[row] = ""
        elif command == "A":
            row -= int(number)
        elif command:
            assert command in "mhl", f"{match[0]!r} is not known here"
        elif letter == "\r":
            column = 0
        elif letter == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        else:
            lines[row] = lines[row][:column].ljust(column) + letter + lines[row][column + 1 :]
            column += 1
    yield [line.rstrip() for line in lines]


def _hear_interrupts() -> None:
    """A test run that a shell put into the background ignores them, and its children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
