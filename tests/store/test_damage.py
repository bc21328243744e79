"""A byte that changes in a stored file, and nothing else that can be seen."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.store.debug import digests, flip, lines, one_clip, produce
from whisper_factory import digest, outputs
from whisper_factory.factory import Outcome
from whisper_factory.store import Store
from whisper_factory.store.__main__ import main


def file_of(outcome: Outcome, step: str, name: str = "") -> Path:
    found = outcome.finished[step]
    return found.path / (name or max(found.record["outputs"], key=lambda name: found.record["outputs"][name]["bytes"]))


def test_the_next_step_that_reads_it_has_it_made_again(tmp_path: Path) -> None:
    made = produce(tmp_path, "validation=none", "stop_after=convert")
    damaged = file_of(made, "convert")
    flip(damaged)
    with lines() as said:
        whole = produce(tmp_path, "validation=none")
    about, = [line for line in said if "damaged" in line]
    assert about.startswith(f"warning: {damaged} is damaged: its SHA-256 is ")
    assert about.endswith("; convert has to be made again")
    assert sum("done in" in line for line in said) == 2  # convert, build
    assert whole.finished["convert"].record["outputs"] == made.finished["convert"].record["outputs"]
    assert digest.of_file(damaged) == made.finished["convert"].record["outputs"][damaged.name]["sha256"]
    linked = whole.plan.directory / "checkpoint" / damaged.name
    assert linked.samefile(damaged)  # no longer the damaged one


def test_what_it_is_made_from_is_hashed_in_its_turn(tmp_path: Path) -> None:
    made = produce(tmp_path, "validation=none", "stop_after=convert")
    for step in ("fetch", "convert"):
        flip(file_of(made, step))
    with lines() as said:
        whole = produce(tmp_path, "validation=none")
    assert [line.split()[0] for line in said if "done in" in line] == ["fetch", "convert", "build"]
    assert digests(whole)["fetch"] == digests(made)["fetch"]
    assert sum("damaged" in line for line in said) == 2


def test_a_run_that_reads_nothing_trusts_it_and_verify_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = produce(tmp_path, "validation=none")
    damaged, store = file_of(made, "build", "encoder.weights"), ["--store", str(tmp_path / "store")]
    assert main(["verify", *store]) == 0
    flip(damaged)
    with lines() as said:
        produce(tmp_path, "validation=none")
    assert sum("didn't change" in line for line in said) == 3
    capsys.readouterr()
    assert main(["verify", *store]) == 3
    told = capsys.readouterr().out
    assert f"damaged   {damaged}: its SHA-256 is" in told
    assert f"used by {made.plan.directory}" in told
    assert damaged.exists()
    assert main(["verify", "--repair", *store]) == 0
    assert not damaged.exists()
    with lines() as said:
        again = produce(tmp_path, "validation=none")
    assert [line.split()[0] for line in said if "done in" in line] == ["build"]
    assert digests(again) == digests(made)
    assert (made.plan.directory / "engine" / "encoder.weights").samefile(damaged)
    assert main(["verify", *store]) == 0


def test_an_output_directory_is_not_written_from_what_is_damaged(tmp_path: Path) -> None:
    made = produce(tmp_path, "validation=none")
    flip(file_of(made, "build", "encoder.weights"))
    with lines() as said:
        again = produce(tmp_path, "validation=none", outputs=tmp_path / "other")
    assert any("encoder.weights is damaged" in line for line in said)
    manifest = json.loads((again.plan.directory / "manifest.json").read_text())
    for name, about in manifest["outputs"].items():
        assert digest.of_file(again.plan.directory / name) == about["sha256"]


def test_the_reference_transcripts_are_read_by_validate(tmp_path: Path) -> None:
    overrides = one_clip(tmp_path)
    made = produce(tmp_path, *overrides)
    damaged = file_of(made, "reference")
    flip(damaged)
    shutil.rmtree(made.finished["validate"].path)
    with lines() as said:
        produce(tmp_path, *overrides)
    assert any(f"{damaged} is damaged" in line for line in said)
    assert [line.split()[0] for line in said if "done in" in line] == ["reference", "validate"]


def test_an_edit_in_the_output_directory_is_found(tmp_path: Path) -> None:
    """It is an edit of the store's file: other bytes, another time."""
    made = produce(tmp_path, "validation=none")
    edited = made.plan.directory / "engine" / "encoder.weights"
    edited.chmod(0o644)
    with edited.open("r+b") as file:
        file.write(b"edited")
    with lines() as said:
        again = produce(tmp_path, "validation=none")
    assert any(f"{file_of(made, 'build', 'encoder.weights')} is damaged" in line for line in said)
    assert digest.of_file(edited) == again.finished["build"].record["outputs"]["encoder.weights"]["sha256"]


def test_a_copied_store_and_touched_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = produce(tmp_path, "validation=none")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    os.utime(file_of(made, "convert"))
    read: list[Path] = []
    original = digest.of_file
    monkeypatch.setattr(digest, "of_file", lambda path: (read.append(path), original(path))[1])

    def found(root: str) -> int:
        read.clear()
        for step, finished in made.finished.items():
            assert Store(tmp_path / root).find(step, finished.path.name) is not None
        return len(read)

    files = sum(len(finished.record["outputs"]) for finished in made.finished.values())
    assert [found("copy"), found("copy"), found("store"), found("store")] == [files, 0, 1, 0]


def test_a_copied_file_is_trusted_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the output directory is on another disk."""
    import errno

    def refuse(*paths: Path) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr("os.link", refuse)
    made = produce(tmp_path, "validation=none")
    copied = made.plan.directory / "engine" / "engine.json"
    assert not copied.samefile(file_of(made, "build", "engine.json"))
    before = copied.stat()
    produce(tmp_path, "validation=none")
    assert copied.stat() == before
    edited = copied.read_bytes().replace(b"debug", b"bugde")
    copied.unlink()
    copied.write_bytes(edited)
    os.utime(copied, (1e9, 1e9))
    produce(tmp_path, "validation=none")
    assert digest.of_file(copied) == made.finished["build"].record["outputs"]["engine.json"]["sha256"]


def test_a_memory_card_that_keeps_whole_seconds_is_not_written_again(tmp_path: Path) -> None:
    """But a file on the same disk with such a time is another file."""
    made = produce(tmp_path, "validation=none")
    stored, copied = (file_of(made, "build", "engine.json"), made.plan.directory / "engine" / "engine.json")
    copied.unlink()
    shutil.copyfile(stored, copied)
    os.utime(copied, ns=(0, stored.stat().st_mtime_ns // 10**9 * 10**9))
    assert not outputs.is_current(made.plan, made.finished)
    card = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        other = produce(tmp_path, "validation=none", outputs=card)
        for path in other.plan.directory.rglob("*"):
            os.utime(path, ns=(0, path.stat().st_mtime_ns // 10**9 * 10**9))
        assert outputs.is_current(other.plan, other.finished)
    finally:
        shutil.rmtree(card)
