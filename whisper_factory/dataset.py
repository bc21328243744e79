"""How well an engine hears a manifest of clips: `python -m whisper_factory.run --dataset MANIFEST.jsonl`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from whisper_factory.whisper.normalize import edit_distance, words


@dataclass(frozen=True)
class Score:
    """Word errors of a set of clips, counted as validation does."""

    clips: int
    words: int  # that were said
    word_errors: int

    @property
    def wer(self) -> float:
        """Word error rate over all clips together, in percent, to two decimals."""
        return round(100 * self.word_errors / max(1, self.words), 2)


def score(pairs: Iterable[tuple[str, str]]) -> Score:
    """Count the errors of (said, heard) pairs, both through Whisper's kind of normalisation."""
    counted = [(words(said), words(heard)) for said, heard in pairs]
    return Score(
        clips=len(counted),
        words=sum(len(said) for said, _ in counted),
        word_errors=sum(edit_distance(said, heard) for said, heard in counted),
    )


def summary(found: Score, audio_seconds: float, seconds: float) -> str:
    """One line: the total, and how fast it went.

    Args:
        audio_seconds: length of all clips.
        seconds: that transcribing them took.
    """
    return (f"WER {found.wer:.2f} % over {found.clips} clips ({found.word_errors} errors in {found.words} words), "
            f"real-time factor {seconds / max(audio_seconds, 1e-9):.3f}")
