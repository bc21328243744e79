from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import Command
from tests.store.debug import child


def test_a_disk_that_is_full_in_each_step(tmp_path: Path) -> None:
    assert child("filling:disk_full_in_each_step", tmp_path, mounts=True) == "survived\n"


def test_a_read_only_store_serves_what_it_has(tmp_path: Path) -> None:
    assert child("filling:read_only", tmp_path, mounts=True).endswith("served\n")


def test_the_clock_set_back(tmp_path: Path) -> None:
    assert child("filling:clock_set_back", tmp_path) == "the same\n"


def test_two_hosts_whose_locks_do_not_reach_each_other(tmp_path: Path) -> None:
    """Twice, the second time onto a store where every step is damaged."""
    assert child("filling:without_locks", tmp_path, 6) == "whole\n"
    for path in (tmp_path / "store").glob("[bcf]*/*/**/*"):
        if path.is_file() and path.name not in ("step.json", "stat.json"):
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    assert child("filling:without_locks", tmp_path, 6) == "whole\n"


def test_eight_processes_at_once_make_each_step_once(python: Command, tmp_path: Path) -> None:
    """The command itself, as eight jobs of a cluster would start it."""
    def run(number: int) -> str:
        done = python("whisper_factory", "model=debug", "profile=duplex_lowmem", "validation=none",
                      f"store.path={tmp_path / 'store'}", f"outputs={tmp_path / str(number % 2)}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stderr

    with ThreadPoolExecutor(8) as pool:
        said = "".join(pool.map(run, range(8)))
    for step in ("fetch", "convert", "build"):
        assert said.count(f"{step:9} done in ") == 1, said
    assert not list((tmp_path / "store" / "tmp").iterdir())


def test_paths_with_spaces_and_other_alphabets(python: Command, tmp_path: Path) -> None:
    store, outputs = tmp_path / "ein Speicher für 店", tmp_path / "выходы, all"
    words = ("whisper_factory", "model=debug", "profile=duplex_lowmem", "validation=none", f"store.path='{store}'",
             f"outputs='{outputs}'")
    for locale in ("C.UTF-8", "POSIX"):
        done = python(*words, cwd=tmp_path, LC_ALL=locale)
        assert done.returncode == 0, done.stderr
    assert done.stderr.count("didn't change") == 3
    for command in ("ls", "verify", "gc"):
        done = python("whisper_factory.store", command, "--store", store, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        if command == "ls":
            assert str(next(outputs.glob("*/*"))) in done.stdout
    assert done.stdout == "freed 0.0 MB\n"
