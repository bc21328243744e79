"""How far a long step is: a bar on a terminal, a line now and then in a pipe or a log, nothing when quiet.

A step opens `context.progress(total, unit)` and is given the function to call with what was done since. Nothing is
shown before SOON seconds. A bar stands below the log lines, so the handler that writes them draws it: a line goes
above, and the bar is erased when the step is done, fails or is interrupted. It is redrawn by the step's own thread:
a validation that measures latencies is not disturbed by another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    StreamHandler = logging.StreamHandler[TextIO]
else:  # no generic type before Python 3.11
    StreamHandler = logging.StreamHandler

ROOT = "whisper_factory"  # the logger whose handlers print
SOON = 2.0  # seconds; what ends before needs no progress
MOMENT = 0.5  # seconds, of which a rate tells something: lines that had to wait to be read come all at once
LEAST, MOST = 5.0, 30.0  # seconds between lines; within these, a quarter of the whole work
REDRAW = 0.1  # seconds
WIDEST, NARROWEST = 30, 5  # bars, in columns
WITHOUT_CURSOR = ("", "dumb", "unknown")  # values of TERM
BYTES = "B"  # the unit of bytes, which are shown in MB
LAYERS = "layers"

Advance = Callable[[float], None]


class Progress(Protocol):
    """Shows how far a piece of work is."""

    def __call__(self, total: float | None, unit: str, done: float = 0) -> AbstractContextManager[Advance]:
        """Open it around the work; gives the function that is told each amount that was done.

        Args:
            total: how much there is to do; None if nobody knows.
            unit: of what: "B" for bytes, else a plural ("clips").
            done: how much of it was done before.
        """


@contextmanager
def silent(total: float | None, unit: str, done: float = 0) -> Iterator[Advance]:
    """A Progress that shows nothing."""
    yield lambda amount: None


def of_step(step: str, say: Callable[[str], None]) -> Progress:
    """The progress of a step, on the stream that log lines are printed to; `silent` if none are (quiet).

    Args:
        say: logs a line, where there is no bar.
    """
    for handler in logging.getLogger(ROOT).handlers:
        if isinstance(handler, Lines) and handler.level <= logging.INFO:
            return partial(handler.progress, step, say)
    return silent


@dataclass
class Tally:
    """How much of some work is done, and how quickly."""

    total: float | None
    unit: str
    done: float
    began: float = field(default_factory=lambda: monotonic())
    paced: tuple[float, float] | None = None  # when the first of it was done, and how much was done then

    def add(self, amount: float) -> None:
        """So much more was done."""
        self.done += amount
        self.paced = self.paced or (monotonic(), self.done)

    def seconds(self) -> float:
        """Since it began."""
        return monotonic() - self.began

    def rate(self) -> float:
        """A second, since the first of it was done: what had to be prepared before says nothing of the rest."""
        since, done = self.paced or (self.began, self.done)
        seconds = monotonic() - since
        return (self.done - done) / seconds if seconds > MOMENT else 0.0  # those of a batch come all at once

    def remaining(self) -> float | None:
        """Seconds till the end, or None if nobody knows."""
        rate = self.rate()
        return max(0.0, self.total - self.done) / rate if self.total is not None and rate else None

    def reads_as_over(self) -> bool:
        """Whether what was done and the total are the same as they are shown: "75.5 of 75.5 MB" at the last block."""
        return self.total is not None and self._shown(self.done) == self._shown(self.total)

    def _shown(self, amount: float) -> str:
        return f"{amount / 1e6:.1f}" if self.unit == BYTES else f"{amount:.0f}"

    def __str__(self) -> str:
        """For example "120.0 of 480.0 MB, 12.0 MB/s, 0:30 left"."""
        size, unit = (1e6, "MB") if self.unit == BYTES else (1, self.unit)
        said = self._shown(self.done)
        said += f" {unit}" if self.total is None else f" of {self._shown(self.total)} {unit}"
        if rate := self.rate():
            said += f", {rate / size:.1f} {unit}/s"
        remaining = self.remaining()
        return said if remaining is None else f"{said}, {_clock(round(remaining))} left"


def _clock(seconds: int) -> str:
    """m:ss, or h:mm:ss."""
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours}:{minutes % 60:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


class Lines(StreamHandler):
    """Prints log lines, and shows the progress of the step at work on the same stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._live: Live | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """A line; above the bar if there is one."""
        if self._live is None:
            return super().emit(record)
        from rich.text import Text

        with suppress(OSError):
            self._live.console.print(Text(self.format(record)), soft_wrap=True)

    @contextmanager
    def progress(self, step: str, say: Callable[[str], None], total: float | None, unit: str, done: float = 0
                 ) -> Iterator[Advance]:
        """A Progress, once it knows the step's name and how it speaks."""
        tally = Tally(total, unit, done)
        show = self._bar(step, tally) if _has_cursor(self.stream) else _now_and_then(tally, say)

        def advance(amount: float) -> None:
            tally.add(amount)
            if tally.seconds() >= SOON:
                show()

        try:
            yield advance
        finally:
            self._erase()

    def _bar(self, step: str, tally: Tally) -> Callable[[], None]:
        drawn = tally.began

        def show() -> None:
            nonlocal drawn
            if monotonic() - drawn < REDRAW:
                return
            drawn = monotonic()
            with suppress(OSError):  # a terminal that went away must not fail the step
                if self._live is None:
                    self._live = _start(self.stream, step, tally)
                self._live.refresh()

        return show

    def _erase(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):
                live.stop()


def _has_cursor(stream: TextIO) -> bool:
    """Whether a bar can be drawn: on a terminal that can go back in a line, and that other workers do not share."""
    from multiprocessing import parent_process

    return stream.isatty() and os.environ.get("TERM", "") not in WITHOUT_CURSOR and parent_process() is None


def _now_and_then(tally: Tally, say: Callable[[str], None]) -> Callable[[], None]:
    """Say it about four times, but neither too often nor too seldom."""
    said = tally.began

    def show() -> None:
        nonlocal said
        remaining = tally.remaining()
        quarter = MOST if remaining is None else (tally.seconds() + remaining) / 4
        due = monotonic() - said >= min(MOST, max(LEAST, quarter))
        if due and not tally.reads_as_over():  # the end is said by the step
            said = monotonic()
            say(str(tally))

    return show


def _start(stream: TextIO, step: str, tally: Tally) -> Live:
    """Rich's live display. Colours are its own business: it knows NO_COLOR."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, force_terminal=True, force_interactive=True, force_jupyter=False, highlight=False)
    live = Live(get_renderable=lambda: _drawing(step, tally, console.width), console=console, auto_refresh=False,
                transient=True, redirect_stdout=False)
    live.start()
    console.show_cursor(True)  # which a process that is killed could not bring back
    return live


def _drawing(step: str, tally: Tally, columns: int) -> RenderableType:
    """The step, a bar if there is room for one, and the tally; one line in any case."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    name, said = f"{step:<9}", str(tally)
    width = min(WIDEST, columns - len(name) - len(said) - 3)
    if width < NARROWEST:
        return Text(f"{name} {said}", no_wrap=True, overflow="crop")
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(name, ProgressBar(tally.total, tally.done, width=width), said)
    return row
