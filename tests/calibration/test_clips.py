"""What is calibrated with: the bundled clips, and a user's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisper_factory import clips as validating
from whisper_factory import digest
from whisper_factory.calibration import clips
from whisper_factory.errors import UserError
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import Dimensions


def wav(path: Path, seconds: float = 0.5) -> Path:
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, int(16_000 * seconds)), 16_000)
    return path


def manifest(folder: Path, count: int, broken: int = 0) -> Path:
    lines = [json.dumps({"audio": wav(folder / f"{number}.wav").name}) for number in range(count)]
    for number in range(broken):
        (folder / f"broken{number}.wav").write_bytes(b"RIFF but no audio")
        lines.append(json.dumps({"audio": f"broken{number}.wav", "text": "What nobody hears."}))
    (folder / "clips.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "clips.jsonl"


def test_the_bundled_clips_can_be_read_and_are_those_of_their_manifest() -> None:
    entries = json.loads(clips.MANIFEST.read_text(encoding="utf-8"))["clips"]
    found = clips.bundled()
    assert len(found) == len(entries) == 128
    for one, entry in zip(found, entries, strict=True):
        assert digest.of_file(one.path) == entry["sha256"]
        assert one.text
        assert one.language == "en"
        assert abs(len(read_audio(one.path)) / 16_000 - entry["seconds"]) < 0.05
    assert sum(one.path.stat().st_size for one in found) < 2_000_000


def test_no_sentence_is_shared_with_the_validations() -> None:
    def sentences(texts: list[str]) -> set[str]:
        return {part.strip().lower() for text in texts for part in text.replace("?", ".").split(".") if part.strip()}

    mine = sentences([one.text or "" for one in clips.bundled()])
    assert not mine & sentences([clip.text for clip in validating.bundled("full")])


def test_a_manifest_without_texts(tmp_path: Path) -> None:
    found, skipped = clips.from_manifest(manifest(tmp_path, 9))
    assert [one.name for one in found] == [f"{number}.wav" for number in range(9)]
    assert found[0].path == tmp_path / "0.wav"
    assert found[0].text is None
    assert not skipped


def test_clips_that_cannot_be_read_are_skipped_by_name(tmp_path: Path) -> None:
    found, skipped = clips.from_manifest(manifest(tmp_path, 8, broken=2))
    assert len(found) == 8
    assert len(skipped) == 2
    assert skipped[0].startswith("warning: calibration skips broken0.wav: ")


def test_too_few_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 3 clips that can be read, calibration needs 8 or more; .*broken0\.wav"):
        clips.from_manifest(manifest(tmp_path, 3, broken=1))


@pytest.mark.parametrize("content", ["", "[]", "\n\n"])
def test_an_empty_manifest(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clips.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="lists no clips to calibrate with; it should hold one"):
        clips.from_manifest(path)


@pytest.mark.parametrize("entry", [{"text": "no audio"}, {"audio": 3}, {"audio": "a.wav", "text": 5}, "a.wav"])
def test_an_entry_of_another_form(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "clips.json"
    path.write_text(json.dumps([entry]), encoding="utf-8")
    with pytest.raises(UserError, match=r'clip 1 needs "audio"; "text" and "language" are text, or not there'):
        clips.from_manifest(path)


def test_the_digest_is_of_contents_not_of_places(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (clips.from_manifest(manifest(tmp_path / name, 8))[0] for name in "ab")
    assert clips.digest(one) == clips.digest(other) != clips.digest(one[1:])


def test_planning_with_the_bundled_clips_needs_no_numpy() -> None:
    code = ("import sys; from whisper_factory.calibration import clips, duration, expectations; clips.digest("
            "clips.bundled()); sys.exit('numpy' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_large_model_is_calibrated_on_half_of_them_of_either_kind() -> None:
    def sized(state: int) -> Dimensions:
        return Dimensions(80, 1500, state, 8, 4, 51864, 448, state, 8, 4)

    assert clips.bundled_for(sized(512)) == clips.bundled()
    half = clips.bundled_for(sized(768))
    assert len(half) == 64
    assert {one.name for one in clips.bundled()[: clips.SENTENCES]} & {one.name for one in half}
    assert {one.name for one in clips.bundled()[clips.SENTENCES :]} & {one.name for one in half}
