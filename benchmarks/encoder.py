"""The 8-bit encoder by MatMulNBits and by products of bytes (many_rows.py), as a Markdown table: why it is the latter.

    python benchmarks/encoder.py --models tiny.en base

Two encoders of the same integers, in turns in one process. Time: of a window of 850 frames, the median; with the arena
of activations kept after a run (contiguous engines), given back (paged ones), and without one. Error: how far states of
the bundled clips are from those of unrounded activations, in parts of their length, the mean over all positions; the
row of float32 says the same of the unrounded weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from accuracy_levels import build
from numpy.typing import NDArray
from precisions import machine

from whisper_factory import clips
from whisper_factory.backends.onnx_graph import runtime
from whisper_factory.backends.onnx_graph.unrounded import write_unrounded
from whisper_factory.backends.onnxruntime.many_rows import ManyRowsDialect
from whisper_factory.backends.onnxruntime.pack import OnnxRuntimeDialect
from whisper_factory.measure import _versions
from whisper_factory.threads import physical_cores
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.logmel import log_mel

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[np.float32]
FRAMES = 850
EVERY = 5  # of the bundled clips
WAYS = ("kept", "given back", "none")


def mels() -> list[Array]:
    """Log-mel windows of speech."""
    heard = [clip for clip in clips.bundled("full") if clip.seconds <= FRAMES / 100 - 1]
    return [log_mel(read_audio(clip.path), 80, FRAMES)[None] for clip in heard[::EVERY]]


def states(session: onnxruntime.InferenceSession, windows: list[Array]) -> Array:
    """What an encoder makes of them, without the anchor: [positions, state]."""
    found = [session.run(["encoder_states"], {"mel": mel})[0][0, : FRAMES // 2] for mel in windows]
    return np.concatenate(found)


def away(found: Array, exact: Array) -> float:
    """Mean distance of states, in parts of their length."""
    distance: Array = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return float(distance.mean())


def exact_states(engine: Path, windows: list[Array]) -> Array:
    """States of an encoder without rounded activations."""
    write_unrounded(engine / "encoder.onnx", engine / ".encoder.onnx")
    return states(runtime.open_session(engine / ".encoder.onnx", 1, fuse_dequantizing=False), windows)


def runs(engine: Path, threads: int) -> list[tuple[onnxruntime.InferenceSession, Any]]:
    """A session and the options of its runs for each of WAYS."""
    path = engine / "encoder.onnx"
    kept, back = (runtime.open_session(path, threads) for _ in range(2))
    import onnxruntime

    class WithoutArena(onnxruntime.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            self.enable_cpu_mem_arena = False

    with mock.patch.object(onnxruntime, "SessionOptions", WithoutArena):
        none = runtime.open_session(path, threads)
    return [(kept, None), (back, runtime.returning_arena()), (none, None)]


def times(engines: list[Path], threads: int, rounds: int) -> list[list[float]]:
    """Milliseconds of a window, for each engine and each of WAYS."""
    runtime.return_large_blocks()  # as paged engines have it; an arena that is kept does not feel it
    pairs = [pair for engine in engines for pair in runs(engine, threads)]
    mel, took = mels()[0], [[] for _ in pairs]  # type: list[list[float]]
    names = [value.name for value in pairs[0][0].get_outputs()]
    for _ in range(rounds):
        for (session, options), seconds in zip(pairs, took, strict=True):
            start = time.perf_counter()
            session.run(names, {"mel": mel}, options)
            seconds.append(time.perf_counter() - start)
    middle = [1000 * median(seconds) for seconds in took]
    return [middle[place:place + len(WAYS)] for place in range(0, len(middle), len(WAYS))]


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    print(f"| model | products | {', '.join(f'arena {way} ms |' for way in WAYS).replace(',', '')} error of states |\n"
          f"|{'---|' * (len(WAYS) + 3)}")
    windows = mels()
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            spelled = {"MatMulNBits": OnnxRuntimeDialect, "of bytes": ManyRowsDialect}
            engines = [build(Path(name) / how, model, "int8", 4, dialect) for how, dialect in spelled.items()]
            exact = exact_states(engines[0], windows)
            for how, engine, took in zip(spelled, engines, times(engines, options.threads, options.rounds),
                                         strict=True):
                error = away(states(runtime.open_session(engine / "encoder.onnx", 1), windows), exact)
                print(f"| {model} | {how} | {' | '.join(f'{ms:.1f}' for ms in took)} | {error:.4f} |", flush=True)
            unquantised = build(Path(name) / "float32", model, "float32", 4, OnnxRuntimeDialect)
            error = away(states(runtime.open_session(unquantised / "encoder.onnx", 1), windows), exact)
            print(f"| {model} | float32 | | | | {error:.4f} |", flush=True)
    print(f"\n{machine(_versions('onnxruntime'), options.threads)}")


if __name__ == "__main__":
    main()
