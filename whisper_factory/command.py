"""Running an external program: its lines are passed on and kept, its time and memory measured, its end made data."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whisper_factory.interruptions import held_back

LAST_LINES = 5
SAMPLE_SECONDS = 0.1  # between looks at the program's memory
GRACE_SECONDS = 5.0  # after SIGTERM, and for output that comes after a program's end
# In lower case, as allocators put it.
MEMORY_WORDS = ("out of memory", "outofmemory", "cannot allocate memory", "std::bad_alloc", "memoryerror",
                "memory allocation failure", "failed to allocate")  # fmt: skip
SHELLS_SIGNALS = 128  # a shell adds a signal's number to this

Trouble = Literal["missing", "memory", "killed", "failed"]


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    trouble: Trouble | None
    code: int | None  # negative: the number of the signal that ended it; None: it could not be started
    seconds: float
    peak_bytes: int  # resident, it and its children together, sampled; memory that lies on a GPU is not in it
    last_lines: list[str]  # that were not empty; if it could not be started, why

    @property
    def ending(self) -> str:
        """The end in words, as "exit code 1" or "killed by SIGKILL"."""
        if self.code is None:
            return "it could not be started"
        name = _signal_name(self.code)
        return f"killed by {name}" if name else f"exit code {self.code}"


def run(words: Sequence[str], log: Path, say: Callable[[str], None] = lambda line: None, cwd: Path | None = None,
        memory_words: Sequence[str] = ()) -> Finished:
    """Run a program to its end.

    Args:
        words: the program and its arguments; no shell is in between.
        log: where all it prints is written, errors too.
        say: takes each line as it comes.
        memory_words: further words, in any case, by which this program says that memory ran out.

    Returns:
        How it ended. An interruption (KeyboardInterrupt, SystemExit) ends the program and its children, and goes on.
    """
    hints = [word.lower() for word in (*MEMORY_WORDS, *memory_words)]
    last: deque[str] = deque(maxlen=LAST_LINES)
    out_of_memory = False
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as kept, ExitStack() as watching:
        try:
            with held_back():
                child = subprocess.Popen(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
                                         start_new_session=True)  # so that its children can be ended with it
                watch = watching.enter_context(_Watch(child))
        except OSError as error:
            kept.write(f"{words[0]}: {error.strerror}\n")
            return Finished("missing", None, 0.0, 0, [f"{words[0]}: {error.strerror}"])
        assert child.stdout is not None
        for line in child.stdout:
            kept.write(line)
            kept.flush()
            if line.strip():
                last.append(line.strip())
                say(line.rstrip())
            out_of_memory = out_of_memory or any(hint in line.lower() for hint in hints)
        code = child.wait()
    return Finished(_trouble(code, out_of_memory), code, round(time.monotonic() - started, 3), watch.peak, list(last))


def _trouble(code: int, out_of_memory: bool) -> Trouble | None:
    if code == 0:
        return None
    if out_of_memory or _signal_name(code) == "SIGKILL":  # which is what the kernel sends when memory runs out
        return "memory"
    return "killed" if _signal_name(code) else "failed"


def _signal_name(code: int) -> str | None:
    number = -code if code < 0 else code - SHELLS_SIGNALS
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


class _Watch:
    """Samples the memory of a program and its children, and lets none of them outlive an interruption."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child, self.peak = child, 0
        self._heard_out = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        if kind is not None:
            self._stop()
        self._heard_out.set()
        self._thread.join()
        if self.child.stdout is not None:
            self.child.stdout.close()

    def _sample(self) -> None:
        while self.child.poll() is None:
            together = sum(_status(pid, "VmRSS") for pid in _tree(self.child.pid))
            self.peak = max(self.peak, together, _status(self.child.pid, "VmHWM"))
            self._heard_out.wait(SAMPLE_SECONDS)
        if not self._heard_out.wait(GRACE_SECONDS):  # a child that was left behind keeps the output open
            self._signal(signal.SIGKILL)

    def _stop(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            self.child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.child.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, number)


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        with suppress(OSError):  # it, or a thread of it, may be gone by now
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found.extend(map(int, children.read_text(encoding="ascii").split()))
    return found


def _status(pid: int, name: str) -> int:
    """A line of /proc/PID/status, in bytes; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
