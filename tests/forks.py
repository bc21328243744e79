"""`python -m MODULE` in forks of one process that has imported what it imports: the same, without a second of imports.

For tests of what a command does. What importing does, and what a fresh interpreter is told by its environment, is
tested with processes of their own (the fixture `python`).
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core import plugins

SERVER = "from tests import forks; forks.serve()"


class Forks:
    """Starts with its first command, ends with `close`."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, *arguments: object, cwd: Path, timeout: int = 300) -> subprocess.CompletedProcess[str]:
        """What `python -m MODULE ARGS...` prints in `cwd`, and its exit code; -14 if it ran out of time."""
        words = [str(argument) for argument in arguments]
        with tempfile.TemporaryDirectory() as scratch:
            streams = [Path(scratch, name) for name in ("out", "err")]
            asked = {"words": words, "cwd": str(cwd), "timeout": timeout, "environment": dict(os.environ),
                     "streams": [str(path) for path in streams]}
            with self._lock:
                code = self._ask(asked)
            out, err = (path.read_text(encoding="utf-8") for path in streams)
        return subprocess.CompletedProcess(words, code, out, err)

    def _ask(self, asked: dict[str, Any]) -> int:
        if self._server is None:
            self._server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, text=True,
                                            stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())

    def close(self) -> None:
        if self._server:
            self._server.communicate()


def serve() -> None:
    """In the process that is forked: a request a line on standard input, an exit code a line on standard output."""
    _import()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _import() -> None:
    """What takes long, but for the modules that are run. Hydra looks for its plugins once a process."""
    for name in ("hydra._internal.hydra", "matplotlib.figure", "onnxruntime",
                 "whisper_factory.backends.onnxruntime.assemble",
                 "whisper_factory.backends.onnxruntime.session", "whisper_factory.factory", "whisper_factory.job",
                 "whisper_factory.report", "whisper_factory.whisper.readers"):
        import_module(name)
    plugins.Plugins.instance()
    gc.freeze()  # a fork need not look through what is here, nor have pages of its own of it
    gc.set_threshold(100_000)


def _become(asked: dict[str, Any]) -> None:
    """Be the command, to its end."""
    signal.alarm(asked["timeout"])
    for number, place in enumerate([os.devnull, *asked["streams"]]):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT), number)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv[1:] = asked["words"][1:]
    code: Any = 0
    try:
        runpy.run_module(asked["words"][0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
