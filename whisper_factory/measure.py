"""`python -m whisper_factory.measure ENGINE_DIR MANIFEST.json OUT.json`: an engine's transcripts and what they cost.

For scripts, and for validation: run in a fresh process, so that load time and peak memory are a user's.

MANIFEST.json: {"clips": [{"paths": ["a.flac"], "shift_seconds": 0.0}, ...], "options": {...}, "batch": false,
"warm_up": true}
A clip's `paths` are joined, with `shift_seconds` of silence in front; its own `repeats`, if any, count instead of
--repeats; `options` are the fields of options.Options; with `batch` all clips are given at once, or so many; without
`warm_up` the first is as slow as a first one is. Other keys are ignored.

OUT.json, per clip: text, tokens, language, stopped and runaway (of its worst window), windows (how many), seams and
seconds (of the audio given), latency_s (from samples to text: the median of --repeats after one warm-up of the
process; in a batch, the batch's time divided by its clips), timings of the last repeat, warnings. In total: load_s,
audio_s, real_time_factor, baseline_rss_bytes (Python and its libraries), loaded_rss_bytes, peak_rss_bytes,
versions, threads.

With --progress a line is printed for each clip that is heard ("heard 3 of 24").
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn

from whisper_factory import console, resident
from whisper_factory.errors import UserError, choices
from whisper_factory.threads import import_numpy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from whisper_factory.whisper.options import Options
    from whisper_factory.whisper.transcribe import Transcriber, Transcript

WORST_FIRST = ("budget", "length", "eot")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code, as `whisper_factory.run`."""
    flags = argparse.ArgumentParser(prog="python -m whisper_factory.measure", description="Measure an engine.")
    flags.add_argument("engine_dir", type=Path)
    flags.add_argument("manifest", type=Path)
    flags.add_argument("out", type=Path)
    flags.add_argument("--repeats", type=int, default=1)
    flags.add_argument("--threads", type=int)
    flags.add_argument("--progress", action="store_true", help="print a line for each clip")
    wanted = flags.parse_args(arguments)

    def work() -> None:
        import_numpy()
        report = measure(wanted.engine_dir, _manifest(wanted.manifest), max(1, wanted.repeats), wanted.threads,
                         _heard if wanted.progress else None)
        wanted.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    return console.run(work, interrupted="")


def when_told(backend: str) -> NoReturn:
    """Be the command, with the arguments that a line of standard input has as a JSON list, and end the process.

    What it imports it imports before: whoever started this can prepare an engine of that backend meanwhile. Without a
    line (its reader may be gone) nothing is done.
    """
    code = console.run(partial(_prepare, backend), interrupted="")
    if line := "" if code else sys.stdin.readline():
        code = main(json.loads(line))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to tear the interpreter and the engine down takes 0.1 s


def _prepare(backend: str) -> None:
    from whisper_factory import backends

    import_numpy()
    from whisper_factory.whisper import transcribe  # noqa: F401 - for what it imports

    resident.import_all(backends.get(backend).LIBRARIES)


def _heard(clips: int, total: int) -> None:
    sys.stdout.write(f"heard {clips} of {total}\n")  # at once, also where nothing is buffered
    sys.stdout.flush()


def _manifest(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not data["clips"]:
            raise UserError(f"'{path}' lists no clips; add one to its \"clips\"")
        return data
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is not a manifest ({type(error).__name__}: {error}); "
                        f'write {{"clips": [{{"paths": ["a.flac"]}}]}}') from error


def measure(engine_dir: Path, manifest: dict[str, Any], repeats: int, threads: int | None,
            heard: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Load the engine, transcribe the manifest's clips, and return the report.

    Args:
        heard: told of each clip how many of how many are heard.
    """
    from whisper_factory import backends
    from whisper_factory.engine_spec import EngineSpec
    from whisper_factory.whisper.options import check, engine_directory
    from whisper_factory.whisper.transcribe import Transcriber

    spec = EngineSpec.load(engine_directory(engine_dir))
    options = _options(manifest)
    check(options, spec)
    clips = [_clip(entry) for entry in manifest["clips"]]
    memory = resident.Meter(backends.get(spec.backend).LIBRARIES)
    start = time.perf_counter()
    transcriber = Transcriber.load(engine_dir, threads)
    load_s = time.perf_counter() - start
    memory.loaded()
    if manifest.get("warm_up", True):
        transcriber.transcribe(clips[:1], options)
    if batch := manifest.get("batch"):
        size = len(clips) if batch is True else batch
        transcripts, latencies = _timed_batches(transcriber, clips, options, repeats, size, heard)
    else:
        often = [entry.get("repeats", repeats) for entry in manifest["clips"]]
        transcripts, latencies = _timed_one_by_one(transcriber, clips, options, often, heard)
    measured = memory.read()
    busy, audio_s = sum(latencies), sum(transcript.seconds for transcript in transcripts)
    return {
        "clips": [_row(*pair) for pair in zip(transcripts, latencies, strict=True)],
        "load_s": load_s, "audio_s": audio_s, "real_time_factor": busy / audio_s,
        "baseline_rss_bytes": measured.baseline, "loaded_rss_bytes": measured.loaded,
        "load_peak_rss_bytes": measured.load_peak, "peak_rss_bytes": measured.peak,
        "versions": _versions(spec.backend), "threads": transcriber.engine.threads,
    }


def _options(manifest: dict[str, Any]) -> Options:
    from whisper_factory.whisper.options import Options

    given, known = manifest.get("options", {}), [entry.name for entry in dataclasses.fields(Options)]
    for name in given:
        if name not in known:
            raise UserError(f"unknown option '{name}' in the manifest; {choices(name, known)}")
    return Options(**given)


def _clip(entry: dict[str, Any]) -> NDArray[np.float32]:
    import numpy as np

    from whisper_factory.whisper.audio import read_audio
    from whisper_factory.whisper.dimensions import SAMPLE_RATE

    silence = np.zeros(round(entry.get("shift_seconds", 0.0) * SAMPLE_RATE), np.float32)
    return np.concatenate([silence, *(read_audio(Path(path)) for path in entry["paths"])])


def _timed_one_by_one(
    transcriber: Transcriber, clips: list[NDArray[np.float32]], options: Options, repeats: list[int],
    heard: Callable[[int, int], None] | None,
) -> tuple[list[Transcript], list[float]]:
    transcripts, latencies = [], []
    for clip, often in zip(clips, repeats, strict=True):
        (transcript,), seconds = _timed(partial(transcriber.transcribe, [clip], options), often)
        transcripts.append(transcript)
        latencies.append(seconds)
        if heard:
            heard(len(transcripts), len(clips))
    return transcripts, latencies


def _timed_batches(
    transcriber: Transcriber, clips: list[NDArray[np.float32]], options: Options, repeats: int, size: int,
    heard: Callable[[int, int], None] | None,
) -> tuple[list[Transcript], list[float]]:
    transcripts: list[Transcript] = []
    latencies: list[float] = []
    for start in range(0, len(clips), size):
        found, seconds = _timed(partial(transcriber.transcribe, clips[start : start + size], options), repeats)
        for transcript in found:
            transcripts.append(transcript)
            latencies.append(seconds / len(found))
            if heard:
                heard(len(transcripts), len(clips))
    return transcripts, latencies


def _timed(work: Callable[[], list[Transcript]], repeats: int) -> tuple[list[Transcript], float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        transcripts = work()
        seconds.append(time.perf_counter() - start)
    return transcripts, median(seconds)


def _row(transcript: Transcript, latency: float) -> dict[str, Any]:
    stops = [heard.decoded.stopped for heard in transcript.windows]
    return {
        "text": transcript.text, "tokens": transcript.tokens, "language": transcript.language,
        "stopped": min(stops, key=WORST_FIRST.index),
        "runaway": any(heard.decoded.runaway for heard in transcript.windows),
        "circles": sum(heard.decoded.circles for heard in transcript.windows),
        "avg_logprob": [heard.decoded.avg_logprob for heard in transcript.windows],
        "windows": len(transcript.windows), "seams": transcript.seams, "seconds": transcript.seconds,
        "latency_s": latency, "timings": dataclasses.asdict(transcript.timings), "warnings": transcript.warnings,
    }


def _versions(backend: str) -> dict[str, str]:
    """Of Python and of the libraries that a backend's engines run with."""
    from whisper_factory import backends

    found = {"python": platform.python_version()}
    modules = backends.get(backend).LIBRARIES
    for package in (*modules, *(f"{module}-gpu" for module in modules)):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
