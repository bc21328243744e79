"""The bundled clips are what their manifest says, and a user's manifest is read or refused in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import soundfile

from whisper_factory import clips
from whisper_factory.errors import UserError

ENTRIES: list[dict[str, Any]] = json.loads(clips.MANIFEST.read_text(encoding="utf-8"))["clips"]
MAKER = Path(__file__).parent.parent / "benchmarks" / "make_clips.py"


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_clips", MAKER)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_every_file_is_what_the_manifest_says(entry: dict[str, Any]) -> None:
    path = clips.HERE / entry["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16_000, 1)
    assert info.duration == pytest.approx(entry["seconds"], abs=1e-3)


def test_every_file_is_in_the_manifest() -> None:
    assert sorted(path.name for path in clips.HERE.glob("*.flac")) == sorted(entry["file"] for entry in ENTRIES)


def test_the_manifest_is_what_the_script_makes() -> None:
    declared = [(f"{name}.flac", voice, text, sets) for name, voice, text, sets in maker().sentences()]
    assert declared == [(entry["file"], entry["voice"], entry["text"], entry["set"]) for entry in ENTRIES]
    assert {voice for _, voice, _, _ in declared} == set(maker().VOICES)


def test_the_sets_have_the_lengths_they_should() -> None:
    full, quick = clips.bundled("full"), clips.bundled("quick")
    seconds = [clip.seconds for clip in full]
    assert len(full) == len({clip.name for clip in full}) == len({clip.text for clip in full}) == 64
    assert sum(1.5 <= length <= 6.4 for length in seconds) >= 44
    assert sum(8 <= length <= 14 for length in seconds) >= 8
    assert sum(16 <= length <= 28 for length in seconds) >= 4
    assert len(quick) == 12
    assert all(clip in full and clip.seconds <= 6.4 for clip in quick)
    assert quick[0].name == full[0].name == "sample"


def test_texts_have_no_digits() -> None:
    assert not [clip.text for clip in clips.bundled("full") if any(character.isdigit() for character in clip.text)]


def manifest(tmp_path: Path, content: Any, name: str = "mine.json") -> Path:
    """A manifest beside a copy of a clip in a folder of its own."""
    (tmp_path / "audio").mkdir(exist_ok=True)
    (tmp_path / "audio" / "a.flac").write_bytes((clips.HERE / "kettle.flac").read_bytes())
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


ONE = {"audio": "audio/a.flac", "text": "The kettle is whistling."}


@pytest.mark.parametrize("content", [
    [ONE], {"clips": [ONE]}, {"clips": [{"file": ONE["audio"], "text": ONE["text"]}]}, ONE,
    "\n" + json.dumps(ONE) + "\n\n",
])  # fmt: skip
def test_manifests_in_every_form(content: Any, tmp_path: Path) -> None:
    (clip,) = clips.from_manifest(manifest(tmp_path, content))
    kettle = next(clip for clip in clips.bundled("quick") if clip.name == "kettle")
    assert clip.path == tmp_path / "audio" / "a.flac"
    assert (clip.text, clip.name) == (ONE["text"], ONE["audio"])
    assert clip.seconds == pytest.approx(kettle.seconds, abs=1e-3)


def test_json_lines(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({**ONE, "text": text}) for text in ("one", "zwei Grüße"))
    assert [clip.text for clip in clips.from_manifest(manifest(tmp_path, lines))] == ["one", "zwei Grüße"]


def test_the_bundled_manifest_is_a_manifest() -> None:
    bundled = clips.bundled("full")
    read = clips.from_manifest(clips.MANIFEST)
    assert [(clip.path, clip.text) for clip in read] == [(clip.path, clip.text) for clip in bundled]
    assert [clip.seconds for clip in read] == pytest.approx([clip.seconds for clip in bundled], abs=1e-3)


@pytest.mark.parametrize(("content", "says"), [
    ([], "lists no clips"), ("", "lists no clips"), ("7", "not a manifest"), ({"clips": 3}, "not a manifest"),
    ("kettle.flac", "line 1 is not JSON"), (json.dumps(ONE) + "\n{", "line 2 is not JSON"),
    ([ONE, {"audio": "audio/a.flac"}], "clip 2 needs"), ([{"text": "a"}], "clip 1 needs"), ([7], "clip 1 needs"),
    ([{**ONE, "text": "  "}], "clip 1 needs"), ([{**ONE, "audio": 3}], "clip 1 needs"),
    ([{**ONE, "audio": "audio/b.flac"}], "clip 1: cannot read .*b.flac"),
    ([{**ONE, "audio": "mine.json"}], "clip 1: .*not audio"),
])  # fmt: skip
def test_a_bad_manifest_is_one_line(content: Any, says: str, tmp_path: Path) -> None:
    path = manifest(tmp_path, content)
    with pytest.raises(UserError, match=says) as caught:
        clips.from_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path, clips.HERE / "kettle.flac"):
        with pytest.raises(UserError, match="cannot read the clips' manifest"):
            clips.from_manifest(path)


def test_the_digest_is_of_texts_and_audio(tmp_path: Path) -> None:
    def of(content: Any) -> str:
        return clips.digest(clips.from_manifest(manifest(tmp_path, content)))

    first = of([ONE])
    assert first == of([{**ONE, "audio": "audio/../audio/a.flac"}])
    assert first != of([{**ONE, "text": "The kettle is whistling!"}])
    assert first != of([ONE, ONE])
    path = manifest(tmp_path, [ONE])
    (tmp_path / "audio" / "a.flac").write_bytes((clips.HERE / "letter.flac").read_bytes())
    assert first != clips.digest(clips.from_manifest(path))


def test_bundled_clips_need_no_audio_library() -> None:
    program = ("import sys; from whisper_factory import clips; clips.digest(clips.bundled('full')); "
               "assert not {'numpy', 'soundfile', 'soxr'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], check=True)
