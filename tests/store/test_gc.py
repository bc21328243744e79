from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.store.debug import digests, lines, produce
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.store import Store, holds, upkeep, users
from whisper_factory.store.__main__ import main
from whisper_factory.store.survey import survey

ELSEWHERE = "jetson-0badcafe"


def steps(root: Path) -> list[str]:
    return sorted(stored.step for stored in survey(root).steps)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """The output directories of an int8 and an int4 engine, which share fetch."""
    int8, int4 = (produce(tmp_path, "validation=none", f"precision={name}") for name in ("int8", "int4"))
    return int8.plan.directory, int4.plan.directory


def test_what_an_output_directory_needs_stays_and_the_rest_goes(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    assert upkeep.gc(store).removals == []
    gone = {stored.path for stored in survey(store.root).steps
            if [user.directory for user in survey(store.root).used_by(stored)] == [two[1]]}
    assert {path.parent.name for path in gone} == {"convert", "build"}
    bytes_of_them = sum(stored.size for stored in survey(store.root).steps if stored.path in gone)
    shutil.rmtree(two[1])
    swept = upkeep.gc(store, dry_run=True)
    record = next(user.record for user in users.everyone(store.root) if user.directory == two[1])
    assert {removal.path for removal in swept.removals} == gone | {record}
    assert bytes_of_them <= swept.freed <= bytes_of_them + record.stat().st_size
    assert len(steps(store.root)) == 5
    before = disk_usage(store.root)
    assert upkeep.gc(store).freed == swept.freed
    assert before - disk_usage(store.root) >= swept.freed
    assert steps(store.root) == ["build", "convert", "fetch"]
    assert main(["gc", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out == "freed 0.0 MB\n"
    with lines() as said:
        produce(tmp_path, "validation=none")
    assert sum("didn't change" in line for line in said) == 3


def disk_usage(root: Path) -> int:
    return sum({path.stat().st_ino: path.stat().st_size for path in root.rglob("*") if path.is_file()}.values())


def test_what_is_linked_from_elsewhere_stays_with_what_it_was_made_from(tmp_path: Path, two: tuple[Path, Path]) -> None:
    """A directory that was moved: no record leads to it, and removing its files would free nothing."""
    two[1].rename(tmp_path / "moved")
    swept = upkeep.gc(Store(tmp_path / "store"))
    assert len(steps(tmp_path / "store")) == 5
    assert swept.freed < 10_000  # the record
    assert sum("the store has no record of" in line for line in swept.left) == 2


def test_left_overs_and_downloads_that_nobody_has_go(tmp_path: Path, two: tuple[Path, Path]) -> None:
    store = Store(tmp_path / "store")
    fetched = next(path for path in (store.root / "fetch").rglob("*") if path.name == "vocabulary.tiktoken")
    kept = json.loads((fetched.parent / "step.json").read_text())["outputs"][fetched.name]["sha256"]
    store.downloads.mkdir(exist_ok=True)
    os.link(fetched, store.downloads / kept)
    (store.downloads / ("ab" * 32)).write_bytes(bytes(1000))
    (store.downloads / f"{'cd' * 32}.{holds.host()}.part").write_bytes(bytes(500))
    (store.root / "tmp" / f"{'ab' * 32}.{holds.host()}.1.00").mkdir()
    (store.root / "tmp" / f"{'ab' * 32}.{holds.host()}.1.00" / "half").write_bytes(bytes(300))
    swept = upkeep.gc(store)
    assert swept.freed == 1800
    assert [path.name for path in store.downloads.iterdir()] == [kept]
    assert list((store.root / "tmp").iterdir()) == []


def test_a_run_in_progress_blocks_it_and_is_named(tmp_path: Path, two: tuple[Path, Path]) -> None:
    store = Store(tmp_path / "store")
    code = ("import sys; from pathlib import Path; from whisper_factory.store import Store\n"
            "with Store(Path(sys.argv[1])).use('a slow build'):\n print('in', flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        said = rf"in use by a slow build \(process {process.pid} on {holds.host()}\); run gc again"
        with pytest.raises(EnvironmentFault, match=said):
            upkeep.gc(store, dry_run=True)
        process.kill()
    assert upkeep.gc(store).removals == []
    assert list((store.root / "runs").iterdir()) == []  # the killed one's


def test_a_run_waits_while_the_store_is_being_tidied(tmp_path: Path) -> None:
    produce(tmp_path, "validation=none")
    store = tmp_path / "store"
    code = ("import sys; from pathlib import Path; from whisper_factory.store import holds\n"
            "with holds.locked(Path(sys.argv[1])):\n print('in', flush=True); sys.stdin.read()")
    command = [sys.executable, "-c", code, str(store / "locks" / "store.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        tidied = threading.Timer(30, process.kill)  # if nobody says that it waits
        tidied.start()
        with lines({"the store is being tidied, waiting": process.stdin.close}) as said:
            produce(tmp_path, "validation=none")
        tidied.cancel()
        assert process.wait() == 0, "it was waited for"
    assert "the store is being tidied, waiting" in said


def test_another_host_is_left_alone_for_a_day(tmp_path: Path, two: tuple[Path, Path]) -> None:
    store = Store(tmp_path / "store")
    run = store.root / "runs" / f"{ELSEWHERE}.17.00"
    run.write_text("a build")
    with pytest.raises(EnvironmentFault, match=f"process 17 on {ELSEWHERE} may be at work .* or remove {run}"):
        upkeep.gc(store)
    long_ago = time.time() - 90_000
    os.utime(run, (long_ago, long_ago))
    scratch = [store.root / "tmp" / f"{'ab' * 32}.{ELSEWHERE}.{process}.00" for process in (17, 18)]
    for path in scratch:
        path.mkdir()
    os.utime(scratch[0], (long_ago, long_ago))
    swept = upkeep.gc(store)
    assert [removal.path for removal in swept.removals] == scratch[:1]
    assert swept.left == [f"{scratch[1]}: another host may be at work on it; it goes a day after its last change"]


def test_without_locks_a_live_run_of_this_host_blocks_it(
    tmp_path: Path, two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "_lock", lambda *arguments: False)
    store = Store(tmp_path / "store")
    with store.use("a build"), pytest.raises(EnvironmentFault, match=f"process {os.getpid()} on {holds.host()} may be"):
        upkeep.gc(store)
    assert upkeep.gc(store).removals == []


@pytest.mark.parametrize(("host", "mount", "stays"), [
    (None, None, False),  # this host's, on a disk that is there
    (ELSEWHERE, None, True),  # another host's own disk
    (ELSEWHERE, ["/", "server:/export"], True),  # a network file system that is not mounted here
    (None, ["/media/stick", "/dev/sdz1"], True),  # a disk that is not plugged in
])
def test_a_directory_that_cannot_be_seen_keeps_its_steps(
    tmp_path: Path, two: tuple[Path, Path], host: str | None, mount: list[str] | None, stays: bool
) -> None:
    store = Store(tmp_path / "store")
    record = next(user.record for user in users.everyone(store.root) if user.directory == two[1])
    about = json.loads(record.read_text())
    record.write_text(json.dumps(about | ({"host": host} if host else {}) | ({"mount": mount} if mount else {})))
    shutil.rmtree(two[1])
    swept = upkeep.gc(store)
    assert len(steps(store.root)) == (5 if stays else 3)
    assert record.exists() == stays
    told = [line for line in swept.left if str(record) in line]
    assert len(told) == stays
    if stays:
        assert "cannot be seen from here, so its steps are kept; if it is gone, remove" in told[0]


def test_a_network_file_system_that_is_mounted_here_shows_what_is_gone(
    tmp_path: Path, two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(tmp_path / "store" / "users")
    monkeypatch.setattr(users, "_mount", lambda directory: ["/", "server:/export"])
    monkeypatch.setattr(holds, "host", lambda: ELSEWHERE)
    for directory in two:
        users.note(tmp_path / "store", directory)
    monkeypatch.undo()
    monkeypatch.setattr(users, "_mount", lambda directory: ["/", "server:/export"])
    shutil.rmtree(two[1])
    upkeep.gc(Store(tmp_path / "store"))
    assert {user.directory for user in users.everyone(tmp_path / "store")} == {two[0]}


def test_a_directory_that_another_store_rewrote_needs_nothing_here(tmp_path: Path, two: tuple[Path, Path]) -> None:
    manifest = two[1] / "manifest.json"
    data = json.loads(manifest.read_text())
    for place in ("checkpoint", "engine"):
        shutil.rmtree(two[1] / place)
    data["steps"]["build"]["key"] = data["steps"]["convert"]["key"] = "ef" * 32
    manifest.unlink()
    manifest.write_text(json.dumps(data))
    upkeep.gc(Store(tmp_path / "store"))
    assert steps(tmp_path / "store") == ["build", "convert", "fetch"]


def test_a_record_that_was_lost_is_kept_again_by_the_next_run(tmp_path: Path, two: tuple[Path, Path]) -> None:
    shutil.rmtree(tmp_path / "store" / "users")
    produce(tmp_path, "validation=none")
    assert [user.directory for user in users.everyone(tmp_path / "store")] == [two[0]]


def test_what_gc_removed_is_made_again_with_the_same_bytes(tmp_path: Path) -> None:
    made = produce(tmp_path, "validation=none")
    shutil.rmtree(tmp_path / "outputs")
    upkeep.gc(Store(tmp_path / "store"))
    assert steps(tmp_path / "store") == []
    assert digests(produce(tmp_path, "validation=none")) == digests(made)


def test_a_directory_that_is_no_store_is_refused(tmp_path: Path) -> None:
    """Above all one with folders that look like keys."""
    precious = tmp_path / "containers" / ("ab" * 32)
    precious.mkdir(parents=True)
    with pytest.raises(UserError, match="is not a store; --store DIR names one"):
        upkeep.gc(Store(tmp_path))
    (tmp_path / "locks").mkdir()
    upkeep.gc(Store(tmp_path))
    assert precious.is_dir()


def test_ls_shows_steps_their_users_and_totals(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "--store", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:5]] == ["build", "build", "convert", "convert", "fetch"]
    assert shown[4].endswith("[1] [2]") or shown[4].endswith("[2] [1]")
    assert {line.split(" ", 1)[1] for line in shown[5:7]} == {str(directory) for directory in two}
    assert shown[-1].startswith("total     5 steps, ")
    assert main(["ls", "--stor", str(tmp_path)]) == 2
    assert "unknown flag '--stor' of ls; did you mean '--store'?" in capsys.readouterr().err
