"""Whether short windows hear all of several sentences, against 3000 frames, paired, as a Markdown table.

    apt-get install flite espeak-ng
    python benchmarks/human_clips.py DIR                                    # if human speech is to be among it
    python benchmarks/several_sentences.py --work outputs/sentences --manifest DIR/clips.jsonl

Recordings of speech.py, without those at 5 dB, joined with pauses of 0.25 to 1 s, each recording of one voice (or one
level of noise): of 4 to 7.4 s, 8 to 14.9 and 15 to 28. One engine hears each twice, greedily: in the window that the
rule gives it (padding_strategy=nopad), and in 3000 frames (max). *Ended early*: less than 0.7 of the words that were
said came out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paired
import soundfile
import speech
from anchor_accuracy import LONG
from memory import build
from precisions import machine

from whisper_factory.measure import _versions
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE
from whisper_factory.whisper.normalize import words

LENGTHS = ((4.0, 7.4, 2 / 3), (8.0, 14.9, 2 / 3), (15.0, 28.0, 1 / 4))  # seconds, and recordings of each of a voice's
PAUSES = (0.25, 0.5, 1.0)
FULL = 0.8  # of the length that is wanted; a recording may be so much shorter
EARLY = 0.7
TRIES = 4000
SEED = 11
HEADER = ("model", "seconds", "n", "WER % at 3000 frames", "by the rule", "difference, points", "ended early at 3000",
          "by the rule", "runaways")


def voice(one: speech.Spoken) -> str:
    """What recordings that are joined have in common."""
    return one.path.stem.removeprefix(f"{one.sentence}-") if one.condition == "other voices" else one.condition


def joined(spoken: list[speech.Spoken], folder: Path) -> Iterator[speech.Spoken]:
    """Recordings of several of these, written into `folder`; their condition is the range of their lengths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    voices: dict[str, list[speech.Spoken]] = {}
    for one in spoken:
        if one.condition != "noise at 5 dB":
            voices.setdefault(voice(one), []).append(one)
    for name, own in voices.items():
        audio = [read_audio(one.path) for one in own]
        lengths = [len(samples) / SAMPLE_RATE for samples in audio]
        for low, high, share in LENGTHS:
            wanted = int(len(own) * share)
            for _ in range(TRIES):
                if not wanted:
                    break
                pause = np.zeros(int(rng.choice(PAUSES) * SAMPLE_RATE), np.float32)
                chosen, seconds = _chosen(lengths, len(pause) / SAMPLE_RATE, low, high, rng)
                if len(chosen) < 2 or not low <= seconds <= high:
                    continue
                path = folder / f"{name.replace(' ', '-')}-{low:.0f}-{wanted}.wav"
                parts = [part for place in chosen for part in (audio[place], pause)][:-1]
                soundfile.write(path, np.concatenate(parts), SAMPLE_RATE, subtype="FLOAT")
                text = " ".join(own[place].text for place in chosen)
                yield replace(own[0], path=path, text=text, condition=f"{low:g} to {high:g}", sentence=path.stem)
                wanted -= 1


def _chosen(lengths: list[float], pause: float, low: float, high: float, rng: np.random.Generator
            ) -> tuple[list[int], float]:
    """Some, in any order, that are together about as long as a length between `low` and `high`; and how long."""
    target, total = rng.uniform(low, high), -pause
    chosen: list[int] = []
    for place in rng.permutation(len(lengths)):
        longer = total + pause + lengths[place]
        if longer <= high:
            chosen.append(int(place))
            total = longer
        if total > (target if longer <= high else target * FULL):
            break
    return chosen, total


def rows(model: str, spoken: list[speech.Spoken], full: list[dict[str, Any]], rule: list[dict[str, Any]]
         ) -> Iterator[list[str]]:
    """One for each range of lengths."""
    for condition in dict.fromkeys(one.condition for one in spoken):
        chosen = [place for place, one in enumerate(spoken) if one.condition == condition]
        said = [spoken[place].text for place in chosen]
        texts = [[found[place]["text"] for place in chosen] for found in (full, rule)]
        found = paired.difference(said, *texts, [spoken[place].sentence for place in chosen])
        early = [str(sum(len(words(heard)) < EARLY * len(words(text)) for text, heard in zip(said, own, strict=True)))
                 for own in texts]
        yield [model, condition, str(len(chosen)), f"{found.first:.2f}", f"{found.second:.2f}", str(found), *early,
               str(sum(rule[place]["runaway"] for place in chosen))]


def main() -> None:
    """Print the table as it grows."""
    parser = speech.arguments(__doc__)
    parser.add_argument("--precision", default="int8")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    spoken = list(joined(speech.collect(work / "recordings", options.manifest, options.sentences), work / "joined"))
    print(f"{len(spoken)} recordings", file=sys.stderr)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for model in options.models:
        language = None if model.endswith(".en") else "en"
        engine = build(work, *LONG, f"model={model}", f"precision={options.precision}")[1]
        full, rule = (speech.hear(engine, spoken, work, options.threads, language=language, padding_strategy=strategy)
                      for strategy in ("max", "nopad"))
        for row in rows(model, spoken, full, rule):
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{options.precision}; {machine(_versions('onnxruntime'), options.threads)}")


if __name__ == "__main__":
    main()
