"""Make the bundled calibration clips again: synthetic speech by flite and espeak-ng, as Opus.

    apt-get install flite espeak-ng
    python benchmarks/make_calibration.py [--out DIR]

Writes NAME.opus for every text below and clips.json (text, seconds, voice, noise, SHA-256, and the versions of the
tools). The same versions make the same samples; the encoder puts a random number into each file.
The texts were written for this project, and share no sentence with the validation's clips. Voices and noise go round
in turn, so that every voice is heard clean and in noise. A third of the second set are short turns, as people take
them with a machine, with a pause of one to four seconds after them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import make_clips
import numpy as np
import soundfile
import speech
from calibration_texts import MORE, TEXTS
from numpy.typing import NDArray

from whisper_factory import digest

OUT = Path(__file__).resolve().parent.parent / "whisper_factory" / "calibration" / "clips"
COMPRESSION = 0.945  # libsndfile's, 0 to 1: about 17 kbit a second
VOICES: dict[str, list[str]] = {
    "slt": [*make_clips.FLITE, "slt"],
    "espeak-us": [*make_clips.ESPEAK, "-v", "en-us", "-s", "155"],
    "awb": [*make_clips.FLITE, "awb"],
    "rms": [*make_clips.FLITE, "rms"],
    "espeak-us-f2": [*make_clips.ESPEAK, "-v", "en-us+f2", "-s", "150"],
    "slt-slow": [*make_clips.FLITE, "slt", "--setf", "duration_stretch=1.2"],
    "kal16": [*make_clips.FLITE, "kal16"],
    "espeak-gb": [*make_clips.ESPEAK, "-v", "en-gb", "-s", "150"],
    "rms-fast": [*make_clips.FLITE, "rms", "--setf", "duration_stretch=0.9"],
    "espeak-us-m5": [*make_clips.ESPEAK, "-v", "en-us+m5", "-s", "135", "-p", "40"],
    "awb-fast": [*make_clips.FLITE, "awb", "--setf", "duration_stretch=0.88"],
    "slt-fast": [*make_clips.FLITE, "slt", "--setf", "duration_stretch=0.9"],
    "espeak-gb-rp": [*make_clips.ESPEAK, "-v", "en-gb-x-rp", "-s", "140"],
}
# Decibels of the speech over the noise; None is none. Its length shares no factor with that of the voices.
NOISES: tuple[int | None, ...] = (None, None, 20, None, 10, None, None, 5)
SHORT, PAUSES = 45, (1.0, 4.0)  # characters of a text that has less are a short turn; seconds of the pause after it


def main() -> None:
    """Make every clip and the manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="directory to write to (default: the package's)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    sets = ((0, TEXTS), (64, MORE))
    entries = [entry for first, texts in sets for entry in make(out, texts.strip().splitlines(), first)]
    manifest = {"made_by": "benchmarks/make_calibration.py", "tools": make_clips.tools(), "clips": entries}
    (out / "clips.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    seconds, size = sum(entry["seconds"] for entry in entries), sum(path.stat().st_size for path in out.iterdir())
    print(f"{len(entries)} clips, {seconds:.1f} s, {size / 1e6:.2f} MB in {out}")


def make(out: Path, texts: list[str], first: int) -> list[dict[str, Any]]:
    """Write the clips of a set, numbered from `first` on, and describe them."""
    voices, turns = list(VOICES), range(first, first + len(texts))
    voiced = [voices[turn % len(voices)] for turn in turns]
    spoken = [make_clips.speak(VOICES[voice], text) for voice, text in zip(voiced, texts, strict=True)]
    entries = []
    for place, (turn, text) in enumerate(zip(turns, texts, strict=True)):
        level = NOISES[turn % len(NOISES)]
        samples = in_noise(spoken, place, turn, level)
        if len(text) < SHORT:
            samples = np.concatenate([samples, pause(spoken[place], turn, level)])
        entries.append(keep(out / f"{turn:02d}.opus", text, samples, voice=voiced[place], noise_db=level))
    return entries


def in_noise(spoken: list[NDArray[np.float32]], place: int, turn: int, level: int | None) -> NDArray[np.float32]:
    """A clip with pink noise or babble of the others, in turn."""
    if level is None:
        return spoken[place]
    rng, length = np.random.default_rng([turn, level]), len(spoken[place])
    noise = speech.pink(length, rng) if turn // len(NOISES) % 2 else speech.talkers(spoken, place, length, rng)
    return speech.mixed(spoken[place], noise, level)


def pause(spoken: NDArray[np.float32], turn: int, level: int | None) -> NDArray[np.float32]:
    """Silence, or pink noise as loud as a clip's own."""
    rng = np.random.default_rng([turn, 0])
    length = int(rng.uniform(*PAUSES) * make_clips.SAMPLE_RATE)
    if level is None:
        return np.zeros(length, np.float32)
    noise = speech.pink(length, rng)
    loudness = np.mean(np.square(spoken)) / np.mean(np.square(noise)) / 10 ** (level / 10)
    return (noise * np.sqrt(loudness)).astype(np.float32)


def keep(path: Path, text: str, samples: NDArray[np.float32], **about: Any) -> dict[str, Any]:
    """Write one clip, and describe it."""
    soundfile.write(path, samples, make_clips.SAMPLE_RATE, format="OGG", subtype="OPUS",
                    compression_level=COMPRESSION)
    return {"file": path.name, "text": text, "seconds": round(len(samples) / make_clips.SAMPLE_RATE, 3), **about,
            "sha256": digest.of_file(path)}


if __name__ == "__main__":
    main()
