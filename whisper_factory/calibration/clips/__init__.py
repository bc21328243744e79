"""Speech to calibrate with: 128 bundled clips, or the user's own.

The bundled clips are synthetic (flite and espeak-ng, half of them in noise), 16 kHz Opus, made by
benchmarks/make_calibration.py; no sentence of theirs is among the validation's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_factory import clips
from whisper_factory import digest as sha256
from whisper_factory.errors import UserError
from whisper_factory.whisper.audio import duration
from whisper_factory.whisper.dimensions import Dimensions

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "clips.json"
FEWEST = 8  # clips, of which anything can be learnt
WIDEST = 512  # base's state, that of the largest model which all the bundled clips calibrate
SENTENCES = 64  # of the bundled clips, the first: whole sentences. The others are as many, and short turns among them
SHAPE = 'one {"audio": "clip.wav"} per line, or a JSON list of them ("text" and "language" are optional)'


@dataclass(frozen=True)
class Speech:
    """A recording; what is said in it, and in which language, where that is known."""

    path: Path
    name: str
    text: str | None
    language: str | None


def bundled() -> list[Speech]:
    """The clips that come with the project."""
    return [Speech(HERE / entry["file"], entry["file"], entry["text"], "en")
            for entry in json.loads(MANIFEST.read_text(encoding="utf-8"))["clips"]]


def bundled_for(dimensions: Dimensions) -> list[Speech]:
    """Those that calibrate a model: all, and of a larger one half, as it takes long."""
    return bundled()[:: 1 if dimensions.n_audio_state <= WIDEST else 2]


def from_manifest(path: Path) -> tuple[list[Speech], list[str]]:
    """A user's clips, and a line about each that cannot be read: JSON lines, or a JSON list, with "audio" (or "file").

    Paths are relative to the manifest. A clip's name is its path as the manifest writes it.

    Raises:
        UserError: no such manifest, it is not of that form, or fewer than FEWEST of its clips can be read.
    """
    found, skipped = [], []
    listed = clips.entries(path, SHAPE)
    for number, entry in enumerate(listed, 1):
        speech = _speech(path, number, entry)
        try:
            duration(speech.path)
            found.append(speech)
        except UserError as error:
            skipped.append(f"warning: calibration skips {speech.name}: {error}")
    if not listed:
        raise UserError(f"'{path}' lists no clips to calibrate with; it should hold {SHAPE}")
    if len(found) < FEWEST:
        raise UserError(f"'{path}' has {len(found)} clips that can be read, calibration needs {FEWEST} or more; add "
                        f"clips, or leave calibration.clips out to take the bundled ones"
                        + "".join(f"; {line.removeprefix('warning: ')}" for line in skipped[:3]))
    return found, skipped


def digest(speech: list[Speech]) -> str:
    """SHA-256 over every clip's text, language and audio file, in order; names and places do not matter."""
    return sha256.of_data([[one.text, one.language, sha256.of_file(one.path)] for one in speech])


def _speech(manifest: Path, number: int, entry: Any) -> Speech:
    fields = entry if isinstance(entry, dict) else {}
    name, text, language = fields.get("audio", fields.get("file")), fields.get("text"), fields.get("language")
    if not (isinstance(name, str) and name and isinstance(text, str | None) and isinstance(language, str | None)):
        raise UserError(f"'{manifest}' clip {number} needs \"audio\"; \"text\" and \"language\" are text, or not "
                        f"there; the manifest should hold {SHAPE}")
    return Speech(manifest.parent / Path(name).expanduser(), name, (text or "").strip() or None, language)
