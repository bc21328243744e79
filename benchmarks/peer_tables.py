"""What peers.py measured, as Markdown: a table of systems, and the ratios of ours to theirs with their spread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

from whisper_factory import dataset

Round = dict[str, Any]  # systems: name -> report of peer_worker.py; cold: profile -> seconds
FASTER_WHISPER = "faster-whisper int8"
OURS = "whisper_factory"
SHORT = ("system", "ms a clip", "first token ms", "real-time factor", "peak MB", "load ms", "start to first text s",
         "WER %")
LONG = ("system", "real-time factor", "peak MB", "WER %")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and from the least to the most."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def wer(said: Sequence[str], report: dict[str, Any]) -> float:
    """Word error rate in percent, as validation counts it."""
    return dataset.score(zip(said, [clip["text"] for clip in report["clips"]], strict=True)).wer


def latency(report: dict[str, Any]) -> float:
    """Mean seconds of a clip."""
    return fmean(clip["seconds"] for clip in report["clips"])


def _first_token(report: dict[str, Any]) -> float:
    return fmean(clip["first_token_s"] for clip in report["clips"])


def _over(found: Sequence[Round], name: str, measure: Callable[[dict[str, Any]], float]) -> list[float]:
    """A measure of a system, in every round."""
    return [measure(one["systems"][name]) for one in found]


def _ratios(found: Sequence[Round], ours: str, theirs: str, measure: Callable[[dict[str, Any]], float]) -> list[float]:
    """Ours over theirs, in every round."""
    return [mine / other for mine, other in zip(_over(found, ours, measure), _over(found, theirs, measure),
                                                strict=True)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(row)} |" for row in rows)]


def short(model: str, said: Sequence[str], audio_s: float, found: Sequence[Round]) -> list[str]:
    """The tables of short clips."""
    names = list(found[0]["systems"])
    ours = sorted(name for name in names if name.startswith(OURS))
    theirs = sorted(set(names) - set(ours))
    rows = []
    for name in [*ours, *theirs]:
        rows.append([name, f"{1000 * median(_over(found, name, latency)):.0f}",
                     f"{1000 * median(_over(found, name, _first_token)):.0f}",
                     f"{len(said) * median(_over(found, name, latency)) / audio_s:.3f}",
                     f"{median(_over(found, name, _peak)) / 1e6:.0f}",
                     f"{1000 * median(_over(found, name, lambda report: report['load_s'])):.0f}",
                     f"{median(_over(found, name, lambda report: report['up_s'])):.2f}",
                     f"{wer(said, found[0]['systems'][name]):.2f}"])
    ratios = [[mine, other, spread(_ratios(found, mine, other, latency)),
               spread(_ratios(found, mine, other, _first_token)), spread(_ratios(found, mine, other, _peak))]
              for mine in ours for other in theirs]
    return [
        f"{model}, {len(said)} clips of {audio_s / len(said):.1f} s, one at a time; median of {len(found)} rounds.", "",
        *_table(SHORT, rows), "",
        *_table(("ours", "theirs", "latency, ours / theirs", "first token", "peak memory"), ratios), "",
        "First token: ours when it is chosen, openai-whisper's and whisper.cpp's when its logits are there, "
        "faster-whisper's by another run that is limited to one token.", "",
        *_cold(found, ours),
    ]


def _peak(report: dict[str, Any]) -> float:
    return float(report["resident"])


def _cold(found: Sequence[Round], ours: Sequence[str]) -> list[str]:
    """Starting from nothing: the command, and the engine's load alone."""
    rows = []
    for profile in found[0]["cold"]:
        name = next(name for name in ours if f" {profile}," in name)
        loads = [1000 * load for load in _over(found, name, lambda report: report["load_s"])]
        rows.append([profile, spread([one["cold"][profile] for one in found]), spread(loads, 0)])
    return _table(("profile", "`python -m whisper_factory.run`, a clip of 5 s: s", "engine load ms"), rows)


def long(model: str, said: str, audio_s: float, found: Sequence[Round]) -> list[str]:
    """The tables of long audio in batches."""
    def factor(report: dict[str, Any]) -> float:
        return float(latency(report) / audio_s)

    names = sorted(found[0]["systems"])
    rows = [[name, f"{median(_over(found, name, factor)):.4f}", f"{median(_over(found, name, _peak)) / 1e6:.0f}",
             f"{wer([said], found[0]['systems'][name]):.2f}"] for name in names]
    ratios = [[mine, other, spread(_ratios(found, mine, other, factor))] for mine in names if mine.startswith(OURS)
              for other in names if not other.startswith(OURS) and other.rpartition(",")[2] == mine.rpartition(",")[2]]
    return ["", f"{model}, {audio_s / 60:.1f} minutes, eight windows in a batch; median of {len(found)} rounds.", "",
            *_table(LONG, rows), "", *_table(("ours", "theirs", "real-time factor, ours / theirs"), ratios)]
