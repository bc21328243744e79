"""An engine's two sessions, and what they leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory import file_pages
from whisper_factory.backends.onnx_graph.runtime import (
    open_session,
    return_freed_memory,
    return_large_blocks,
    returning_arena,
)
from whisper_factory.backends.onnxruntime.files import DECODER, ENCODER
from whisper_factory.backends.onnxruntime.sizes import cross_in_bytes
from whisper_factory.engine_spec import EngineSpec

if TYPE_CHECKING:
    import onnxruntime


class Opened:
    """The sessions of an engine directory. A session may be run by several threads of Python at once; each is one of
    the session's own threads while it does."""

    encoder: onnxruntime.InferenceSession
    decoder: onnxruntime.InferenceSession

    def __init__(self, directory: Path, spec: EngineSpec, threads: int) -> None:
        self.threads = 0
        self.encoder_run: onnxruntime.RunOptions | None = None
        self._directory, self._spec = directory, spec
        self._returns = spec.kv_cache.mode == "paged"  # all that is done with
        if self._returns:
            return_large_blocks()
            self.encoder_run = returning_arena()
        self.use(threads)

    def use(self, threads: int) -> None:
        """Have sessions of so many threads. Others are closed first, as each has the weights in memory of its own."""
        if threads == self.threads:
            return
        if not self.threads:
            self._open(threads)
        else:  # what the heap has of the first ones' blocks it does not give back by itself
            self.threads = 0
            del self.encoder, self.decoder
            return_freed_memory()
            self._open(threads)
            return_freed_memory()
        self.threads = threads

    def _open(self, threads: int) -> None:
        """Open them; what that leaves behind goes back to the system."""
        file_pages.let_go(file_pages.code())  # that imports ran through
        precision = self._spec.precision
        integers = precision.bits > 0
        optimize = not integers or cross_in_bytes(self._spec)  # else there is nothing to gain, and 10 ms to lose
        # The decoder first: while a session repacks a matrix it has it twice, and the decoder has the largest.
        self.decoder = open_session(self._directory / f"{DECODER}.onnx", threads, optimize=optimize)
        prepack = integers or (not self._returns and precision.name == "float32")
        self.encoder = open_session(self._directory / f"{ENCODER}.onnx", threads, prepack=prepack, optimize=optimize,
                                    exact_arena=self._returns)
        if precision.name == "float16":  # widening leaves 6 to 21 MB behind (tiny.en)
            return_freed_memory()
        self._code = file_pages.code()
        file_pages.let_go(self._code)

    def between(self) -> None:
        """What the stage before has left behind goes back to the system."""
        if self._returns:
            return_freed_memory()
            file_pages.let_go(self._code)
