"""Run by test_faults.py in processes that mount small or read-only file systems of their own."""

from __future__ import annotations

import json
import os
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.store.debug import STEPS, composed, digests, lines, mount, one_clip, produce
from whisper_factory import steps
from whisper_factory.errors import EnvironmentFault
from whisper_factory.store import Store, upkeep
from whisper_factory.store import __main__ as command
from whisper_factory.store.survey import survey


def fill(disk: Path) -> None:
    """Write until nothing more goes."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    ballast.write(bytes(size))


def disk_full_in_each_step(folder: str) -> None:
    """The disk fills up when a step begins, for one step after the other; then under the output directory."""
    base = Path(folder)
    store, outputs = base / "store", base / "small"
    for directory, size in ((store, "250m"), (outputs, "1m")):
        directory.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory)
    overrides = one_clip(base)
    for name in STEPS:
        said = _fails(base, name, overrides)
        assert f"no space left under {store} (0 MB free); make room, or store.path=DIR" in said, said
        assert not list((store / "tmp").iterdir()), name
        (store / "ballast").unlink()
    with pytest.raises(EnvironmentFault, match=r"no space left .* outputs=DIR moves the outputs"):
        produce(base, *overrides, outputs=outputs)
    assert not [path for path in outputs.rglob(".*")]
    with lines() as said_at_last:
        produce(base, *overrides)
    assert sum("didn't change" in line for line in said_at_last) == 5
    assert list(upkeep.verify(Store(store), survey(store))) == []
    print("survived")


def _fails(base: Path, name: str, overrides: tuple[str, ...]) -> str:
    module: Any = steps.STEPS[name]
    original = module.run

    def run(*arguments: Any) -> None:
        fill(base / "store")
        original(*arguments)

    module.run = run
    try:
        with pytest.raises(EnvironmentFault) as raised:
            produce(base, *overrides)
        return str(raised.value)
    finally:
        module.run = original


def read_only(folder: str) -> None:
    """A store that was copied to a read-only file system serves what it has, to new output directories too."""
    base = Path(folder)
    disk = base / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=100m", "tmpfs", disk)
    made = produce(base, "validation=none", store=disk / "store")
    for path in (disk / "store").rglob("*"):  # other times than were trusted, as in a copy
        os.utime(path, (1, 1))
    mount("-o", "remount,ro", disk)
    for outputs in (base / "outputs", base / "elsewhere", base / "elsewhere"):
        with lines() as said:
            again = produce(base, "validation=none", store=disk / "store", outputs=outputs)
        assert digests(again) == digests(made)
        assert sum("didn't change" in line for line in said) == 3
        assert not any("warning" in line for line in said)
        assert (again.plan.directory / "engine" / "engine.json").is_file()
    before = {path: path.stat().st_mtime_ns for path in (base / "elsewhere").rglob("*")}
    produce(base, "validation=none", store=disk / "store", outputs=base / "elsewhere")
    assert before == {path: path.stat().st_mtime_ns for path in (base / "elsewhere").rglob("*")}
    with pytest.raises(EnvironmentFault, match=r"cannot write .*Read-only file system"):
        produce(base, "validation=none", "precision=int4", store=disk / "store")
    for words in (["ls"], ["verify"], ["gc", "--dry_run"]):
        assert command.main([*words, "--store", str(disk / "store")]) == 0
    assert command.main(["gc", "--store", str(disk / "store")]) in (0, 4)
    print("served")


def clock_set_back(folder: str) -> None:
    """A run, another years earlier by the clock, files from the future; keys and bytes know no clock."""
    base, real = Path(folder), time.time
    with lines() as said:
        made = produce(base, "validation=none")
        for path in (base / "store").rglob("*"):
            os.utime(path, (4e9, 4e9))
        time.time, time.time_ns = (lambda: 1e6), (lambda: 10**15)
        again = produce(base, "validation=none")
        other = produce(base, "validation=none", store=base / "other")
        wider = produce(base, "validation=none", "precision=int4")
        swept = upkeep.gc(Store(base / "store"), dry_run=True)
        time.time = real
    assert digests(made) == digests(again) == digests(other)
    assert digests(wider)["fetch"] == digests(made)["fetch"]
    assert not any("damaged" in line for line in said)
    assert sum("didn't change" in line for line in said) == 3 + 1
    assert [removal.path for removal in swept.removals] == []
    print("the same")


def without_locks(folder: str, processes: str) -> None:
    """Many processes make the same steps with locks that exclude nobody; prints what each found."""
    from whisper_factory.store import holds

    holds._lock = lambda *arguments: False  # type: ignore[assignment]
    base, made = Path(folder), composed("validation=none")
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    children = [_fork(base, made, number) for number in range(int(processes))]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    found = [json.loads((base / f"{number}.json").read_text()) for number in range(len(children))]
    assert all(one == found[0] for one in found)
    store = base / "store"
    assert len(list(store.glob("[bcf]*/*"))) == 3
    assert not list((store / "tmp").iterdir())
    assert list(upkeep.verify(Store(store), survey(store))) == []
    directory, = (base / "outputs").glob("*/*")
    assert not list(directory.glob(".*"))
    with lines() as said:
        produce(base, "validation=none")
    assert sum("didn't change" in line for line in said) == 3
    print("whole")


def _fork(base: Path, made: Any, number: int) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        (base / f"{number}.json").write_text(json.dumps(digests(produce(base, made=made))))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
