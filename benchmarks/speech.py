"""More speech than the bundled clips: their sentences in other voices and at other rates, and with noise.

For benchmarks of accuracy, which need some hundred clips. Needs flite and espeak-ng, as make_clips.py. The same tools
make the same samples.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import make_clips
import numpy as np
import soundfile
from keeping import fingerprint
from numpy.typing import NDArray

from whisper_factory import clips
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import SAMPLE_RATE

LONGEST = 7.5  # seconds
NOISES_DB = (20, 10, 5)  # speech over noise
TALKERS = 3  # at once, in babble
# Voices and rates that the bundled clips do not have, by flite's and espeak-ng's options.
OTHERS: dict[str, list[str]] = {
    "slt-fast": [*make_clips.FLITE, "slt", "--setf", "duration_stretch=0.85"],
    "awb-fast": [*make_clips.FLITE, "awb", "--setf", "duration_stretch=0.85"],
    "rms-slow": [*make_clips.FLITE, "rms", "--setf", "duration_stretch=1.25"],
    "kal16-slow": [*make_clips.FLITE, "kal16", "--setf", "duration_stretch=1.2"],
    "espeak-us-fast": [*make_clips.ESPEAK, "-v", "en-us+m3", "-s", "185"],
    "espeak-us-f4": [*make_clips.ESPEAK, "-v", "en-us+f4", "-s", "160"],
    "espeak-scotland": [*make_clips.ESPEAK, "-v", "en-gb-scotland", "-s", "140"],
    "espeak-slow": [*make_clips.ESPEAK, "-v", "en-us+m7", "-s", "115"],
}


@dataclass(frozen=True)
class Spoken:
    """A recording: what is said, under which condition, and the sentence that it shares with others."""

    path: Path
    text: str
    condition: str  # bundled, other voices, 20 dB ..., human
    sentence: str


def arguments(about: str | None) -> argparse.ArgumentParser:
    """What benchmarks of accuracy on this speech ask for, but for precisions; `about` is the script's docstring."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="recordings, engines and reports; kept")
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--manifest", type=Path, help="human speech, as human_clips.py makes it")
    parser.add_argument("--sentences", type=int, help="only so many, to see that it runs")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def collect(folder: Path, manifest: Path | None = None, most: int | None = None) -> list[Spoken]:
    """All recordings of at most 7.5 s, written into `folder` where they are not bundled.

    Every bundled sentence as it is, twice in other voices, and once at each level of noise, in one of these three
    recordings; noise is pink or babble in turn. Then the manifest's clips, as "human".

    Args:
        most: only so many sentences, and so many of the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = [clip for clip in clips.bundled("full") if clip.seconds <= LONGEST][:most]
    voices, found = list(OTHERS), []
    babble = [read_audio(clip.path) for clip in clips.bundled("full")]
    for number, clip in enumerate(known):
        samples = [read_audio(clip.path)]
        found.append(Spoken(clip.path, clip.text, "bundled", clip.name))
        for voice in (voices[number % len(voices)], voices[(number + 3) % len(voices)]):
            samples.append(make_clips.speak(OTHERS[voice], clip.text))
            found.append(_keep(folder / f"{clip.name}-{voice}.wav", samples[-1], clip.text, "other voices", clip.name))
        for turn, level in enumerate(NOISES_DB):
            speech, rng = samples[(number + turn) % len(samples)], np.random.default_rng([number, level])
            noise = pink(len(speech), rng) if (number + turn) % 2 else talkers(babble, number, len(speech), rng)
            found.append(_keep(folder / f"{clip.name}-{level}dB.wav", mixed(speech, noise, level), clip.text,
                               f"noise at {level} dB", clip.name))
    found = [one for one in found if soundfile.info(one.path).duration <= LONGEST]
    human = [clip for clip in clips.from_manifest(manifest) if clip.seconds <= LONGEST][:most] if manifest else []
    return [*found, *(Spoken(clip.path, clip.text, "human", clip.name) for clip in human)]


def _keep(path: Path, samples: NDArray[np.float32], text: str, condition: str, sentence: str) -> Spoken:
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    return Spoken(path, text, condition, sentence)


def pink(length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise whose power falls with the frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    made: NDArray[np.float32] = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), length).astype(
        np.float32)
    return made


def talkers(voices: list[NDArray[np.float32]], but: int, length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Other clips, spoken at once, each begun anywhere and repeated."""
    chosen = rng.choice([index for index in range(len(voices)) if index != but], TALKERS, replace=False)
    parts = [np.resize(np.roll(voices[index], int(rng.integers(len(voices[index])))), length) for index in chosen]
    return np.sum(parts, axis=0, dtype=np.float32)


def mixed(speech: NDArray[np.float32], noise: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Speech and noise, the speech `level` dB above it."""
    gain = np.sqrt(np.mean(np.square(speech)) / np.mean(np.square(noise)) / 10 ** (level / 10))
    return speech + np.float32(gain) * noise


def hear(engine: Path, spoken: list[Spoken], work: Path, threads: int, **options: Any) -> list[dict[str, Any]]:
    """Each recording's report by `whisper_factory.measure`, from an earlier run where nothing has changed."""
    manifest = {"clips": [{"paths": [str(one.path)]} for one in spoken], "options": options}
    name = fingerprint(str(engine), options, files=tuple(one.path for one in spoken))
    asked, out = work / f"{name}.manifest.json", work / f"{name}.json"
    if not out.exists():
        asked.write_text(json.dumps(manifest), encoding="utf-8")
        part = out.with_suffix(".part")
        command = [sys.executable, "-m", "whisper_factory.measure", str(engine), str(asked), str(part), "--threads",
                   str(threads)]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{' '.join(command)} failed")
        part.rename(out)
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["clips"]
    return found
