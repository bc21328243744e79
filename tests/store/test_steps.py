from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from whisper_factory.errors import EnvironmentFault
from whisper_factory.store import RECORD, Store, link

KEY = "ab" * 32


def quiet(line: str) -> None:
    pass


def work(out: Path) -> None:
    (out / "sub").mkdir()
    (out / "sub" / "file.bin").write_bytes(b"payload")


def test_a_step_is_kept_with_its_record(tmp_path: Path) -> None:
    made = Store(tmp_path).make("build", KEY, {"params": {"a": 1}}, work, quiet)
    assert made.path == tmp_path / "build" / KEY
    assert made.record["outputs"] == {"sub/file.bin": {
        "bytes": 7, "sha256": "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5"}}
    found = Store(tmp_path).find("build", KEY)
    assert found is not None
    assert found.record == made.record
    assert not os.access(made.path / "sub" / "file.bin", os.W_OK) or os.geteuid() == 0
    assert (made.path / "sub" / "file.bin").stat().st_mode & 0o222 == 0


def test_a_file_that_was_hashed_as_it_was_written_is_not_hashed_again(tmp_path: Path) -> None:
    def hashing(out: Path) -> dict[str, str]:
        work(out)
        (out / "other").write_bytes(b"payload")
        return {"sub/file.bin": "ab" * 32}

    made = Store(tmp_path).make("build", KEY, {}, hashing, quiet)
    assert [entry["sha256"] for entry in made.record["outputs"].values()] == [
        "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5", "ab" * 32]
    assert list(made.record["outputs"]) == ["other", "sub/file.bin"]
    assert not Store(tmp_path).is_sound(made), "a wrong digest is found by whoever hashes the file"


def test_work_on_a_key_has_a_place_that_gc_knows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, two = store.scratch(KEY), store.scratch(KEY)
    assert one != two
    assert one.parent == two.parent == tmp_path / "tmp"
    assert one.name.startswith(f"{KEY}.")
    assert not one.exists()


def test_work_runs_once(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        Store(tmp_path).make("build", KEY, {}, lambda out: runs.append(out), quiet)
    assert len(runs) == 1


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        work(out)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        Store(tmp_path).make("build", KEY, {}, fail, quiet)
    assert Store(tmp_path).find("build", KEY) is None
    assert list((tmp_path / "tmp").iterdir()) == []


def test_full_disk_is_the_environments_fault_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(out: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as full:  # the kernel answers ENOSPC
            full.write(b"x")

    with pytest.raises(EnvironmentFault, match=r"no space left under .* MB free\); make room, or store.path=DIR"):
        Store(tmp_path).make("build", KEY, {}, fill, quiet)
    assert Store(tmp_path).find("build", KEY) is None


def test_a_bug_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Store(tmp_path).make("build", KEY, {}, lambda out: (out / "absent").read_bytes() and None, quiet)


def test_a_store_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent" / "store")
    with pytest.raises(EnvironmentFault, match="cannot write"):
        Store(tmp_path / "dangling").make("build", KEY, {}, work, quiet)
    with pytest.raises(EnvironmentFault, match="cannot write"):
        Store(tmp_path / "file" / "store").make("build", KEY, {}, work, quiet)


@pytest.mark.parametrize("damage", [
    lambda path: (path / RECORD).write_text("{"),
    lambda path: (path / RECORD).unlink(),
    lambda path: (path / "sub" / "file.bin").unlink(),
    lambda path: (path / "sub" / "file.bin").write_bytes(b"shorter"[:3]),
])
def test_a_damaged_step_is_not_found_and_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    made = Store(tmp_path).make("build", KEY, {}, work, quiet)
    for path in made.path.rglob("*"):
        path.chmod(0o755)
    damage(made.path)
    assert Store(tmp_path).find("build", KEY) is None
    again = Store(tmp_path).make("build", KEY, {}, work, quiet)
    assert (again.path / "sub" / "file.bin").read_bytes() == b"payload"


def slow_work(out: Path) -> None:
    (out / "ran-by").write_text(str(os.getpid()))
    time.sleep(0.2)


def make_once(root: Path) -> None:
    Store(root).make("build", KEY, {}, slow_work, quiet)


def test_eight_processes_at_once_do_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=make_once, args=(tmp_path,)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 8
    found = Store(tmp_path).find("build", KEY)
    assert found is not None
    assert list(found.record["outputs"]) == ["ran-by"]


SCRIPT = """
import sys
from pathlib import Path
from whisper_factory.store import Store
def work(out):
    for index in range(201):
        if index == int(sys.argv[3]):
            print("go", flush=True)
            index < 200 and sys.stdin.read()  # until it is killed
        index < 200 and (out / str(index)).write_bytes(b"x" * 1000)
Store(Path(sys.argv[1])).make("build", sys.argv[2], {}, work, print)
"""


@pytest.mark.parametrize("place", [0, 1, 100, 199, 200])
def test_killed_at_any_moment_it_is_whole_or_absent(tmp_path: Path, place: int) -> None:
    """Before each of these files is written; and at moments after the last, some of which come when all is done."""
    for attempt in range(1 if place < 200 else 6):
        key = f"{attempt:064x}"
        with subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), key, str(place)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            time.sleep(0.01 * attempt)
            process.send_signal(signal.SIGKILL)
        found = Store(tmp_path).find("build", key)
        if found:
            assert place == 200
            assert len(found.record["outputs"]) == 200
        again = Store(tmp_path).make("build", key, {}, lambda out: (out / "one").touch(), quiet)
        assert len(again.record["outputs"]) in (1, 200)
        names = {path.name for path in again.path.iterdir()} - {RECORD, "stat.json"}
        assert names == set(again.record["outputs"])


def test_a_link_shares_the_bytes_and_across_disks_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Store(tmp_path / "store").make("build", KEY, {}, work, quiet)
    source = made.path / "sub" / "file.bin"
    link(source, tmp_path / "linked")
    assert (tmp_path / "linked").samefile(source)

    def refuse(*paths: Path) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr("os.link", refuse)
    link(source, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == source.read_bytes()
    assert not (tmp_path / "copied").samefile(source)


def test_a_script_stays_executable_and_nothing_is_writable(tmp_path: Path) -> None:
    def script(out: Path) -> None:
        (out / "build.sh").touch(0o755)
        (out / "plain").touch()

    made = Store(tmp_path).make("kit", KEY, {}, script, quiet)
    assert (made.path / "build.sh").stat().st_mode & 0o777 == 0o555
    assert (made.path / "plain").stat().st_mode & 0o777 == 0o444


def test_record_is_plain_json(tmp_path: Path) -> None:
    made = Store(tmp_path).make("build", KEY, {"tools": {"onnx": "1"}}, work, quiet)
    record = json.loads((made.path / RECORD).read_text())
    assert record["tools"] == {"onnx": "1"}
    assert record["seconds"] >= 0
