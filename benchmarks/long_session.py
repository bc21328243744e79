"""A long session in one process: does memory stay where it is, and do pages come back?

    python benchmarks/long_session.py --engine_dir outputs/.../ --minutes 30

The bundled clips are joined, again and again, and cut into turns of ten seconds, which are transcribed one after the
other. After each turn: resident memory, by the system's count, and the KV cache's pages in use, which must be none.
Printed: one line a minute, then the slope over the second half of the turns, with its standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory import backends, clips, resident
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE
from whisper_factory.whisper.options import engine_directory
from whisper_factory.whisper.transcribe import Transcriber


def turns(count: int, seconds: float) -> Iterator[NDArray[np.float32]]:
    """Stretches of the joined clips, each `seconds` long."""
    audio = np.concatenate([read_audio(clip.path) for clip in clips.bundled("full")])
    size = round(seconds * SAMPLE_RATE)
    for turn in range(count):
        yield np.take(audio, range(turn * size, (turn + 1) * size), mode="wrap")


def slope(values: list[int]) -> tuple[float, float]:
    """Growth a turn of the second half of the values, by least squares, and its standard error."""
    y = np.asarray(values[len(values) // 2 :], np.float64)
    x = np.arange(len(y)) - (len(y) - 1) / 2
    growth = float(x @ y / (x @ x))
    rest = y - y.mean() - growth * x
    return growth, float(np.sqrt(rest @ rest / max(1, len(y) - 2) / (x @ x)))


def session(engine_dir: Path, minutes: float, seconds: float, threads: int | None) -> dict[str, Any]:
    """Run the session and report it; one line of progress a minute."""
    memory = resident.Meter(backends.get(EngineSpec.load(engine_directory(engine_dir)).backend).LIBRARIES)
    transcriber = Transcriber.load(engine_dir, threads)
    memory.loaded()
    rss, pages, words = [], [], 0
    for turn, audio in enumerate(turns(round(minutes * 60 / seconds), seconds)):
        transcript, = transcriber.transcribe([audio])
        words += len(transcript.text.split())
        rss.append(resident.now())
        pages.append(transcriber.engine.memory.pages_in_use)  # type: ignore[attr-defined]
        if (turn + 1) * seconds % 60 < seconds:
            print(f"{(turn + 1) * seconds / 60:5.1f} min  {rss[-1] / 1e6:7.2f} MB  {pages[-1]} pages in use  "
                  f"{words} words", flush=True)
    growth, error = slope(rss)
    return {"turns": len(rss), "rss_bytes": rss, "pages_in_use": pages, "words": words,
            "loaded_rss_bytes": memory.read().loaded, "peak_rss_bytes": memory.read().peak,
            "slope_bytes_per_turn": growth, "slope_error": error}


def main() -> int:
    """Run it; 1 if pages stayed in use."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine_dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--turn_seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="write everything here too")
    options = parser.parse_args()
    report = session(options.engine_dir, options.minutes, options.turn_seconds, options.threads)
    if options.json:
        options.json.write_text(json.dumps(report) + "\n", encoding="utf-8")
    rss = report["rss_bytes"]
    half = rss[len(rss) // 2 :]
    print(f"{report['turns']} turns: {rss[0] / 1e6:.2f} MB after the first, {min(half) / 1e6:.2f} to "
          f"{max(half) / 1e6:.2f} in the second half, {report['peak_rss_bytes'] / 1e6:.2f} at peak; slope "
          f"{report['slope_bytes_per_turn'] / 1e3:.2f} +- {report['slope_error'] / 1e3:.2f} kB a turn; "
          f"at most {max(report['pages_in_use'])} pages in use between turns")
    return 1 if any(report["pages_in_use"]) else 0


if __name__ == "__main__":
    sys.exit(main())
