"""Progress as users meet it: on a terminal, in a pipe, quiet; and when the terminal or the user has had enough."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal, on_terminal, screen
from tests.test_download import Server
from whisper_factory import progress
from whisper_factory.progress import Lines, Tally

# The command with real weights, as if everything took long. Its clock goes on by a hundredth whenever it is looked at:
# how many lines there are, and what rates they tell, does not depend on the machine.
EAGER = """
import atexit, itertools, runpy, sys
from whisper_factory import progress
progress.SOON, progress.REDRAW, progress.LEAST, progress.MOMENT = 0.0, 0.0, 0.0, 0.0
progress.monotonic = itertools.count(0.0, 0.01).__next__
atexit.register(lambda: sys.argv.count("validation=none") and print("rich:", "rich" in sys.modules))
runpy.run_module("whisper_factory", run_name="__main__")
"""
BUILD = ("model=tiny.en", "profile=duplex_lowmem", "validation=none", "stop_after=build", "store.path=store")
TIMES = re.compile(r"[\d.]+ (?=s$)", re.MULTILINE)


@pytest.fixture
def eager(tmp_path: Path) -> Path:
    (tmp_path / "eager.py").write_text(EAGER)
    return tmp_path / "eager.py"


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The command with its output in a pipe."""
    folder = tmp_path_factory.mktemp("piped")
    (folder / "eager.py").write_text(EAGER)
    done = subprocess.run([sys.executable, "eager.py", *BUILD], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def is_progress(line: str) -> bool:
    return re.match(r" {10}[\d.]+ of [\d.]+ (MB|layers)", line) is not None


def test_in_a_pipe_there_are_plain_lines(piped: subprocess.CompletedProcess[str]) -> None:
    lines = piped.stderr.splitlines()
    assert "\x1b" not in piped.stderr
    assert "\r" not in piped.stderr
    bytes_done = [line for line in lines if is_progress(line) and " MB" in line]
    assert all(re.match(r" {10}[\d.]+ of [\d.]+ MB(, [\d.]+ MB/s, \d:\d\d left)?$", line) for line in bytes_done)
    copied = [float(line.split()[0]) for line in bytes_done if "of 75.5 MB" in line]  # by fetch
    assert 1 <= len(copied) <= 8
    assert copied == sorted(set(copied))
    assert copied[-1] < 75.5
    assert any(line.endswith("layers/s, 0:00 left") for line in lines)
    assert "rich: False" in piped.stdout


def test_on_a_terminal_there_is_a_bar_and_then_it_is_gone(
    piped: subprocess.CompletedProcess[str], eager: Path, tmp_path: Path
) -> None:
    with on_terminal(eager, *BUILD, cwd=tmp_path) as terminal:
        assert terminal.end() == 0
    frames = terminal.frames()
    bars = [line for frame in frames for line in frame if "━" in line]
    assert not any("━" in line for frame in frames for line in frame[:-2])  # one, below the lines
    for step, of in (("fetch", r"of 75\.5 MB, [\d.]+ MB/s, \d:\d\d left"), ("convert", r"of [\d.]+ MB"),
                     ("build", r"[1-4] of 4 layers")):
        assert any(re.match(rf"{step:<9} [━╸╺]+ .*{of}", bar) for bar in bars), step
    plain = [line for line in piped.stderr.splitlines() if not is_progress(line)]
    seen = screen(terminal.written)
    assert [TIMES.sub("", line) for line in seen[: len(plain)]] == [TIMES.sub("", line) for line in plain]
    assert "━" not in "\n".join(seen)
    assert "rich: True" in seen


@pytest.mark.parametrize("setting", ["quiet=true", "dry_run=true"])
def test_nothing_when_quiet(setting: str, eager: Path, tmp_path: Path) -> None:
    with on_terminal(eager, *BUILD, setting, cwd=tmp_path) as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.written
    assert not any(is_progress(line) for line in terminal.written.splitlines())
    if setting == "quiet=true":
        assert len(terminal.written.splitlines()) == 2  # the directory, and what the test prints
        assert "convert" not in terminal.written


def test_a_terminal_without_a_cursor_gets_lines(eager: Path, tmp_path: Path) -> None:
    with on_terminal(eager, *BUILD[:3], "stop_after=fetch", "store.path=store", cwd=tmp_path, TERM="dumb") as terminal:
        assert terminal.end() == 0
    assert "\x1b" not in terminal.written
    assert any(is_progress(line) for line in terminal.written.splitlines())


LOGGING = """
import logging, multiprocessing, sys
from whisper_factory import progress

def work(step="step"):
    log = logging.getLogger("whisper_factory")
    log.setLevel(logging.INFO)
    log.handlers[:] = [progress.Lines(sys.stderr)]
    progress.SOON, progress.REDRAW, progress.LEAST, progress.MOST = 0.0, 0.0, 0.0, 0.0
    with progress.of_step(step, log.info)(4, "clips") as advance:
        for clip in range(4):
            advance(1)
            log.info("line %d %s", clip, "[bold]x[/bold] " + "long " * 30)
            print("warning from elsewhere", file=sys.stderr)
    log.info("done")

if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        worker = multiprocessing.get_context("spawn").Process(target=work)
        worker.start()
        worker.join()
    else:
        work()
"""


def logged(tmp_path: Path, *arguments: str, **environment: str) -> Terminal:
    (tmp_path / "logging_script.py").write_text(LOGGING)
    with on_terminal("logging_script.py", *arguments, cwd=tmp_path, **environment) as terminal:
        assert terminal.end() == 0
    return terminal


def test_log_lines_go_above_the_bar(tmp_path: Path) -> None:
    terminal = logged(tmp_path)
    long = "[bold]x[/bold] " + ("long " * 30).rstrip()
    expected = [line for clip in range(4) for line in (f"line {clip} {long}", "warning from elsewhere")]
    assert screen(terminal.written) == [*expected, "done", ""]
    for frame in terminal.frames()[:-1]:
        assert re.match(r"step      ━.* \d of 4 clips", frame[-1])
        assert frame[:-1] == expected[: len(frame) - 1]
    assert len(terminal.frames()) > 8


def test_no_color_is_honoured(tmp_path: Path) -> None:
    colour = re.compile(r"\x1b\[[\d;]*3[0-9;]*m")
    assert colour.search(logged(tmp_path).written)
    plain = logged(tmp_path, NO_COLOR="1")
    assert not colour.search(plain.written)
    assert any("━" in line for frame in plain.frames() for line in frame)


@pytest.mark.parametrize(("columns", "bar"), [(20, False), (60, True), (300, True)])
def test_one_line_whatever_the_width(columns: int, bar: bool, tmp_path: Path) -> None:
    lines = [line for frame in logged(tmp_path, COLUMNS=str(columns)).frames() for line in frame if " of 4 " in line]
    assert lines
    assert all(line.startswith("step      ") and len(line) <= columns for line in lines)
    assert all(("━" in line) == bar for line in lines)


def test_workers_that_share_a_terminal_draw_no_bars(tmp_path: Path) -> None:
    terminal = logged(tmp_path, "worker")
    assert "\x1b" not in terminal.written
    assert "1 of 4 clips" in terminal.written


def test_an_interruption_leaves_a_clean_terminal(eager: Path, tmp_path: Path) -> None:
    server = Server()
    server.stall.clear()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    overrides = (*BUILD, "weights=openai", f"model.url={server.url}")
    try:
        with on_terminal(eager, *overrides, cwd=tmp_path, no_proxy="127.0.0.1", XDG_CACHE_HOME="none") as terminal:
            before, pressed = terminal.modes(), False
            for written in terminal.read():
                if "of 1.0 MB" in written and not pressed:
                    pressed = True
                    terminal.press("\x03")
            assert terminal.process.wait() == 130
            assert terminal.modes() == before
    finally:
        server.stall.set()
        server.shutdown()
        server.server_close()
        thread.join()
    assert any("fetch     ━" in line for frame in terminal.frames() for line in frame)
    lines = [line for line in screen(terminal.written) if line and not line.startswith("rich")]
    assert lines[-2:] == ["          tiny.pt: downloading 1.0 MB", "interrupted; finished steps are kept"]
    assert terminal.written.rfind("\x1b[?25h") > terminal.written.rfind("\x1b[?25l")  # the cursor is there


def say(line: str) -> None:
    logging.getLogger("whisper_factory.step").info(line)


class Clock:
    """The time, as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What a handler of the package's logger prints."""
    log, printed = logging.getLogger("whisper_factory"), io.StringIO()
    before, log.handlers, level = log.handlers, [Lines(printed)], log.level
    log.setLevel(logging.INFO)
    yield printed
    log.handlers = before
    log.setLevel(level)


def test_what_ends_soon_says_nothing(clock: Clock, stream: io.StringIO) -> None:
    with progress.of_step("copy", say)(100, "B") as advance:
        for _ in range(100):
            clock.now += 0.019
            advance(1)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("seconds", "lines"), [(4, 0), (8, 1), (80, 3), (400, 12)])
def test_lines_are_seldom_and_not_too_seldom(clock: Clock, stream: io.StringIO, seconds: int, lines: int) -> None:
    with progress.of_step("copy", say)(100, "clips") as advance:
        for _ in range(100):
            clock.now += seconds / 100
            advance(1)
    assert len(stream.getvalue().splitlines()) == lines


def test_an_unknown_total(clock: Clock, stream: io.StringIO) -> None:
    with progress.of_step("copy", say)(None, "B") as advance:
        for _ in range(61):
            clock.now += 1
            advance(1e6)
    assert stream.getvalue().splitlines() == ["30.0 MB, 1.0 MB/s", "60.0 MB, 1.0 MB/s"]


def test_the_end_is_said_by_the_step_even_where_a_small_block_is_missing(clock: Clock, stream: io.StringIO) -> None:
    with progress.of_step("copy", say)(75.54e6, "B") as advance:
        for done in (40e6, 35.5e6, 0.04e6):
            clock.now += 31
            advance(done)
    assert [line.split(" MB")[0] for line in stream.getvalue().splitlines()] == ["40.0 of 75.5"]


def test_quiet_or_unconfigured_logging_shows_nothing() -> None:
    log = logging.getLogger("whisper_factory")
    before = log.handlers
    try:
        log.handlers = []
        assert progress.of_step("copy", say) is progress.silent
        log.handlers = [Lines(sys.stderr)]
        log.handlers[0].setLevel(logging.WARNING)
        assert progress.of_step("copy", say) is progress.silent
    finally:
        log.handlers = before


def test_the_rate_leaves_out_the_preparations_and_what_was_there_before(clock: Clock) -> None:
    tally = Tally(480e6, "B", 120e6)
    clock.now += 50
    tally.add(10e6)
    assert str(tally) == "130.0 of 480.0 MB"
    clock.now += 10
    tally.add(50e6)
    assert str(tally) == "180.0 of 480.0 MB, 5.0 MB/s, 1:00 left"
    hours = Tally(36000, "clips", 0)
    hours.add(0)
    clock.now += 1
    hours.add(1)
    assert str(hours) == "1 of 36000 clips, 1.0 clips/s, 9:59:59 left"


def test_what_came_all_at_once_tells_no_rate(clock: Clock) -> None:
    """The reports of processes that were heard only now, as this one was at other work."""
    tally = Tally(24, "clips", 0)
    for _ in range(13):
        clock.now += 0.01
        tally.add(1)
    assert str(tally) == "13 of 24 clips"
    clock.now += 5
    tally.add(3)
    assert str(tally) == "16 of 24 clips, 2.9 clips/s, 0:03 left"


def test_a_terminal_that_goes_away_does_not_stop_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SOON", 0.0)
    monkeypatch.setattr(progress, "REDRAW", 0.0)
    handler = Lines(Gone())
    with handler.progress("copy", say, 4, "clips") as advance:
        for _ in range(4):
            advance(1)
            handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, "line", None, None))
