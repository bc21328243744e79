"""Short clips of speech with their texts, for validation: 64 bundled ones, or the user's own.

The bundled clips are synthetic (flite and espeak-ng), 16 kHz mono FLAC, made by benchmarks/make_clips.py;
clips.json says which voice spoke each. Nothing here imports an audio library unless a user's manifest is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whisper_factory import digest as sha256
from whisper_factory.errors import UserError

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "clips.json"
SHAPE = 'one {"audio": "clip.wav", "text": "what is said"} per line, or a JSON list of them'


@dataclass(frozen=True)
class Clip:
    """Audio, what is said in it, its length, and a name for reports."""

    path: Path
    text: str
    seconds: float
    name: str


def bundled(which: Literal["quick", "full"]) -> list[Clip]:
    """The bundled clips: 12 short ones ("quick"), or all 64. The first is the sample that a first run prints."""
    entries = json.loads(MANIFEST.read_text(encoding="utf-8"))["clips"]
    return [Clip(HERE / entry["file"], entry["text"], entry["seconds"], Path(entry["file"]).stem)
            for entry in entries if which in entry["set"]]  # fmt: skip


def from_manifest(path: Path) -> list[Clip]:
    """A user's clips: JSON lines, a JSON list, or clips.json's own form, with "audio" (or "file") and "text".

    Paths are relative to the manifest. A clip's name is its path as the manifest writes it.

    Raises:
        UserError: no such manifest, it is not of that form, it is empty, or a clip's audio cannot be read.
    """
    clips = [_clip(path, number, entry) for number, entry in enumerate(entries(path), 1)]
    if not clips:
        raise UserError(f"'{path}' lists no clips; it should hold {SHAPE}")
    return clips


def digest(clips: Iterable[Clip]) -> str:
    """SHA-256 over every clip's text and audio file, in order; names and places do not matter."""
    return sha256.of_data([[clip.text, sha256.of_file(clip.path)] for clip in clips])


def entries(path: Path, shape: str = SHAPE) -> list[Any]:
    """What a manifest lists, whichever way it is written.

    Args:
        shape: what it should hold, for the errors.

    Raises:
        UserError: no such manifest, or it is not of that form.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"cannot read the clips' manifest '{path}' ({reason}); it should hold {shape}") from error
    try:
        whole = json.loads(content)
    except json.JSONDecodeError:
        lines = [(number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
        whole = [_line(path, number, line, shape) for number, line in lines]
    if isinstance(whole, dict):
        whole = whole.get("clips", [whole])
    if not isinstance(whole, list):
        raise UserError(f"'{path}' is not a manifest of clips; it should hold {shape}")
    return whole


def _line(path: Path, number: int, line: str, shape: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"'{path}' line {number} is not JSON ({error.msg}); it should hold {shape}") from error


def _clip(manifest: Path, number: int, entry: Any) -> Clip:
    from whisper_factory.whisper.audio import duration

    fields = entry if isinstance(entry, dict) else {}
    name, text = fields.get("audio", fields.get("file")), fields.get("text")
    if not (isinstance(name, str) and name and isinstance(text, str) and text.strip()):
        raise UserError(f"'{manifest}' clip {number} needs \"audio\" and \"text\", both non-empty; "
                        f"the manifest should hold {SHAPE}")
    path = manifest.parent / Path(name).expanduser()
    try:
        return Clip(path, text, duration(path), name)
    except UserError as error:
        raise UserError(f"'{manifest}' clip {number}: {error}") from error
