"""How every command ends: one line about an error, an exit code that says whose it is, and streams that hold.

Nothing here imports a library of a backend or Hydra.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from whisper_factory.errors import EnvironmentFault, FactoryError

WANT_TRACEBACK = ("WHISPER_FACTORY_DEBUG", "HYDRA_FULL_ERROR")  # either, set to 1
MACHINES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ELOOP, errno.ENOTDIR,
            errno.EISDIR, errno.ENAMETOOLONG, errno.ESTALE, errno.EMFILE)
INTERRUPTED, TERMINATED, PIPE_CLOSED = 130, 143, 141


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks instead of one line."""
    return any(os.environ.get(name) == "1" for name in WANT_TRACEBACK)


def prepare() -> None:
    """At a command's start: text that the terminal cannot show is escaped, and SIGTERM ends children too."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))


def finish() -> int:
    """At a command's end: flush what was printed; 0, or the code for a reader that went away."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError as error:
        return tell(error)
    return 0


def run(work: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """A command from its start to its end; returns its exit code.

    Args:
        work: what it does; returns an exit code of its own, if it has any.
        interrupted: what an interrupt has it say; nothing where another process started it, which says so.
    """
    prepare()
    try:
        code = work()
    except KeyboardInterrupt:
        if interrupted:
            print(interrupted, file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if wants_traceback():
            raise
        return tell(error)
    return finish() or code or 0


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, then its cause or context, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def known(error: BaseException) -> FactoryError | None:
    """The user's mistake or the machine's trouble behind an exception, or None: then it is a bug of ours."""
    for link in chain(error):
        if isinstance(link, FactoryError):
            return link
        if isinstance(link, ModuleNotFoundError) and link.name and link.name.partition(".")[0] != "whisper_factory":
            return EnvironmentFault(f"{link.name.partition('.')[0]} is not installed for {sys.executable}; "
                                    "pip install 'whisper-factory[onnxruntime]' (in a checkout: make run, and then "
                                    ". .venv/bin/activate)")
        if isinstance(link, MemoryError):
            return EnvironmentFault("out of memory; use a smaller batch or beam, or a smaller model")
        if isinstance(link, OSError) and link.errno in MACHINES:
            where = f"'{link.filename}': " if link.filename is not None else ""
            return EnvironmentFault(f"{where}{link.strerror}; check its permissions, its disk and the path")
    return None


def tell(error: BaseException, explained: FactoryError | None = None) -> int:
    """Print one line about an error and return its exit code.

    Args:
        explained: what is behind it, where the caller knows more than `known` does.
    """
    if isinstance(error, BrokenPipeError):  # `| head`: nobody is listening any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE_CLOSED
    fault = explained or known(error)
    print(f"error: {fault or bug(error)}", file=sys.stderr)
    return fault.exit_code if fault else 1


def bug(error: BaseException) -> str:
    """One line about a bug of ours: where it was, and how to see more."""
    where = "unknown place"
    trace = error.__traceback__
    while trace:
        where, trace = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}", trace.tb_next
    said = " ".join(str(error).split())
    return (f"this is a bug of whisper_factory: {type(error).__name__} at {where}: {said}; "
            f"run again with {WANT_TRACEBACK[0]}=1 for the traceback")
