"""Processes that work side by side and say, line by line, how far they are."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from whisper_factory.interruptions import held_back
from whisper_factory.progress import Progress
from whisper_factory.steps.closing import Closing

LAST_LINES = 5


class Children(Closing):
    """Processes, started."""

    def __init__(self, commands: Sequence[list[str]], environment: dict[str, str] | None = None,
                 told: bool = False) -> None:
        """
        Args:
            environment: None: this process's own.
            told: they wait for a line that `tell` sends them; if this process is gone, they end.
        """
        self._children: list[subprocess.Popen[bytes]] = []
        reading, writing = os.pipe()  # one for all: lines are short, and each comes whole
        self._said = open(reading, encoding="utf-8", errors="replace")  # noqa: SIM115 - `close` closes it
        try:
            for command in commands:
                with held_back():
                    self._children.append(subprocess.Popen(
                        command, stdin=subprocess.PIPE if told else subprocess.DEVNULL, stdout=writing, stderr=writing,
                        env=environment, bufsize=0))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(writing)

    def __len__(self) -> int:
        return len(self._children)

    def tell(self, lines: Sequence[str]) -> None:
        """Send each its line, once; those for which there is none end."""
        for number, child in enumerate(self._children):
            assert child.stdin is not None
            with child.stdin, suppress(BrokenPipeError):  # it has ended already: its exit code says more
                child.stdin.write("".join(lines[number : number + 1]).encode())

    def follow(self, done: re.Pattern[str], progress: Progress, unit: str, total: float | None = None
               ) -> tuple[int, list[str]]:
        """Wait for all of them, or for one that fails: the others are ended then, as nobody wants half of an answer.

        Args:
            done: the lines by which they say that one more is done.
            total: how many there are; None if nobody knows.

        Returns:
            The exit code, of one that failed if any did, and the last of what else was said.
        """
        last: deque[str] = deque(maxlen=LAST_LINES)
        failed = 0
        with progress(total, unit) as advance:
            for line in self._said:
                if done.fullmatch(line):
                    advance(1)
                elif line.strip():
                    last.append(line.rstrip())
                if not failed and (failed := self._failed()):
                    self._end()
        for child in self._children:
            child.wait()
        return failed or self._failed(), list(last)

    def _failed(self) -> int:
        """The exit code of one that has failed, else 0."""
        return next(filter(None, (child.poll() for child in self._children)), 0)

    def _end(self) -> None:
        """Kill all before any is waited for: a second interruption may come meanwhile."""
        for child in self._children:
            if child.poll() is None:
                child.kill()

    def close(self) -> None:
        """End those that are still at work: an interruption came, say, and they must not go on alone."""
        self._end()
        for child in self._children:
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        self._said.close()


def follow(commands: Sequence[list[str]], done: re.Pattern[str], progress: Progress, unit: str,
           total: float | None = None, environment: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Run commands, side by side, from their start to their end. See `Children.follow`."""
    with Children(commands, environment) as children:
        return children.follow(done, progress, unit, total)
