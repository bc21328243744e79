"""What `whisper_factory.bench` found, as data and as the lines of its table."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from whisper_factory import dataset

if TYPE_CHECKING:
    from whisper_factory.engine_spec import EngineSpec
    from whisper_factory.resident import Measured
    from whisper_factory.stopwatch import Lap, Part
    from whisper_factory.whisper.transcribe import Transcript

    Run = tuple[Transcript, Lap]

PERCENTILES = (50, 90, 95)
PARTS: dict[str, Part] = {"encoder": "encoder", "language detection": "language", "prompt": "prompt",
                          "tokens": "tokens", "generate": "generate"}  # what the stopwatch calls them
UNSPLIT = "this runtime encodes and decodes in one call: encoder, prompt and tokens cannot be told apart, and the " \
          "first token's time is not known"


def make(spec: EngineSpec, named: Sequence[tuple[Path, str | None]], rounds: Sequence[Sequence[Run]],
         memory: Measured) -> dict[str, Any]:
    """The report: latencies in seconds over all runs, the real-time factor of each round, the parts' shares.

    Args:
        named: the clips: their file, and what is said in them if that is known.
        rounds: of each round, every clip's transcript and times, in the clips' order.
    """
    runs = [run for one in rounds for run in one]
    audio_s = sum(transcript.seconds for transcript, _ in rounds[0])
    factors = [sum(lap.seconds for _, lap in one) / audio_s for one in rounds]
    firsts = [lap.first_token for _, lap in runs]
    heard = [(said, transcript.text) for (_, said), (transcript, _) in zip(named, rounds[-1], strict=True) if said]
    return {
        "engine": {"model": spec.model, "precision": spec.precision.name, "profile": spec.profile.name,
                   "kv_cache": spec.kv_cache.mode, "backend": spec.backend},
        "clip_count": len(named), "repeats": len(rounds), "audio_s": audio_s,
        "latency_s": distribution(lap.seconds for _, lap in runs),
        "first_token_s": None if None in firsts else distribution(first for first in firsts if first is not None),
        "real_time_factor": {"median": median(factors), "min": min(factors), "max": max(factors)},
        "parts": _parts(runs), "unsplit": UNSPLIT if any("generate" in lap.parts for _, lap in runs) else None,
        "memory_bytes": {"baseline": memory.baseline, "loaded": memory.loaded, "peak": memory.peak},
        "wer": dataset.score(heard).wer if heard else None, "word_errors": dataset.score(heard).word_errors,
        "words": dataset.score(heard).words, "python": platform.python_version(),
        "clips": [_clip(path, said, [one[index] for one in rounds]) for index, (path, said) in enumerate(named)],
    }


def distribution(seconds: Iterable[float]) -> dict[str, float]:
    """Mean, percentiles (interpolated) and the largest of some times."""
    import numpy as np

    values = np.asarray(list(seconds))
    points = {f"p{point}": float(np.percentile(values, point)) for point in PERCENTILES}
    return {"mean": float(values.mean()), **points, "max": float(values.max())}


def _parts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Calls and seconds a run, the mean over all runs; together they are the mean latency."""
    total, count = sum(lap.seconds for _, lap in runs), len(runs)
    found: dict[str, tuple[int, float]] = {"log-mel": (sum(len(transcript.windows) for transcript, _ in runs),
                                                       sum(transcript.timings.log_mel for transcript, _ in runs))}
    for label, kind in PARTS.items():
        work = [lap.parts[kind] for _, lap in runs if kind in lap.parts]
        if calls := sum(one.count for one in work):
            found[label] = (calls, sum(one.seconds for one in work))
    decoding = sum(transcript.timings.decoder for transcript, _ in runs)
    in_calls = sum(seconds for label, (_, seconds) in found.items() if label not in ("log-mel", "encoder"))
    found["choosing tokens, KV cache"] = (0, max(0.0, decoding - in_calls))
    found["rest"] = (0, total - sum(seconds for _, seconds in found.values()))
    return [{"part": label, "calls_per_clip": calls / count, "seconds_per_call": seconds / calls if calls else None,
             "seconds_per_clip": seconds / count, "share": seconds / total}
            for label, (calls, seconds) in found.items()]


def _clip(path: Path, said: str | None, runs: Sequence[Run]) -> dict[str, Any]:
    transcript, _ = runs[-1]
    return {"path": str(path), "seconds": transcript.seconds, "text": transcript.text, "said": said,
            "windows": len(transcript.windows), "tokens": len(transcript.tokens), "warnings": transcript.warnings,
            "latency_s": [lap.seconds for _, lap in runs], "first_token_s": [lap.first_token for _, lap in runs]}


def table(report: dict[str, Any]) -> list[str]:
    """The report for a person, a line each."""
    engine, seconds = report["engine"], [clip["seconds"] for clip in report["clips"]]
    factor, memory = report["real_time_factor"], report["memory_bytes"]
    lines = [f"engine        {engine['model']} {engine['precision']} {engine['profile']}, {engine['kv_cache']} KV "
             f"cache, {engine['backend']}, {report['threads']} threads",
             f"clips         {report['clip_count']} of {min(seconds):.1f} to {max(seconds):.1f} s, one at a time, "
             f"{report['repeats']} times each",
             "", f"{'ms':28}{'mean':>9}{'p50':>9}{'p90':>9}{'p95':>9}{'max':>9}",
             _times("audio to text", report["latency_s"])]
    if report["first_token_s"]:
        lines.append(_times("audio to first token", report["first_token_s"]))
    lines += ["", f"{'where the time goes':28}{'calls':>9}{'ms each':>9}{'ms':>9}{'share':>9}"]
    lines += [_part(part) for part in report["parts"]]
    if report["unsplit"]:
        lines.append(report["unsplit"])
    load, first = 1000 * report["load_s"], 1000 * report["first_clip_s"]
    lines += ["", f"speed         real-time factor {factor['median']:.3f} ({factor['min']:.3f} to {factor['max']:.3f})",
              f"load          {load:.0f} ms; the first clip after it {first:.0f} ms",
              f"memory        {memory['baseline'] / 1e6:.1f} MB Python and its libraries, {memory['loaded'] / 1e6:.1f} "
              f"MB with the engine, {memory['peak'] / 1e6:.1f} MB at peak"]
    if report["wer"] is not None:
        lines.append(f"words         WER {report['wer']:.2f} % ({report['word_errors']} errors in {report['words']} "
                     f"words)")
    return lines


def _times(label: str, found: dict[str, float]) -> str:
    return f"{label:28}" + "".join(f"{1000 * value:9.1f}" for value in found.values())


def _part(part: dict[str, Any]) -> str:
    each = part["seconds_per_call"]
    calls = f"{part['calls_per_clip']:9.1f}{1000 * each:9.2f}" if each is not None else " " * 18
    return f"{part['part']:28}{calls}{1000 * part['seconds_per_clip']:9.1f}{100 * part['share']:8.1f}%"
