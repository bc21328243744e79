"""Fixtures: the command line in a process of its own, over one store for the whole session."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

from tests.forks import Forks
from whisper_factory import clips

with mock.patch.dict(os.environ, OPENBLAS_NUM_THREADS="1"):  # in this process: its threads wait busily for a core
    import_module("numpy")

# How long an example takes, or is made, tells of the machine and of what else it does.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

Command = Callable[..., subprocess.CompletedProcess[str]]

# Modules that build tiny.en in the shared store, which each of pytest-xdist's processes has for itself.
TINY_EN = ("test_engines.py", "test_main.py", "test_tensorrt.py", "test_wheel.py")


def pytest_collection_finish() -> None:
    """What was imported is not looked through for garbage again. Torch too computes in one thread, if it is used."""
    gc.freeze()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def together(nodeid: str) -> str:
    """What a test is run in one process with: its module, for the engines that its tests share, or all of TINY_EN."""
    module = nodeid.partition("::")[0]
    return "tiny.en" if Path(module).name in TINY_EN else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups by `together`. (pytest-xdist 3.8's own way, the mark xdist_group, does nothing under pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Scheduler(config, log)


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished steps are shared by the tests, as they are by compositions."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def python() -> Command:
    """Run `python -m MODULE ARGS...` and return what it printed and its exit code."""

    def run(*arguments: object, cwd: Path | None = None, timeout: float = 300, **environment: str
            ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)], cwd=cwd, timeout=timeout, text=True, capture_output=True,
            stdin=subprocess.DEVNULL, env={**os.environ, **environment}, check=False,
        )

    return run


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    started = Forks()
    yield started
    started.close()


@pytest.fixture
def factory(python: Command, forks: Forks, shared_store: Path, tmp_path: Path) -> Command:
    """Run `python -m whisper_factory OVERRIDES...` in an empty working directory, over the shared store.

    With variables of the environment in a fresh interpreter, which may heed them; else in a fork of one.
    """

    def run(*overrides: object, **environment: str) -> subprocess.CompletedProcess[str]:
        first = 1 if str(overrides[0]).startswith("-") else 0  # argparse wants the overrides in one piece
        arguments = [*overrides[:first], f"store.path={shared_store}", *overrides[first:]]
        if environment:
            return python("whisper_factory", *arguments, cwd=tmp_path, **environment)
        return forks.run("whisper_factory", *arguments, cwd=tmp_path)

    return run


@pytest.fixture
def one_clip(tmp_path: Path) -> tuple[str, ...]:
    """Overrides for a validation of a second: the first of the bundled clips, from a manifest."""
    clip = clips.bundled("quick")[0]
    (tmp_path / "one.jsonl").write_text(json.dumps({"audio": str(clip.path), "text": clip.text}), encoding="utf-8")
    return f"validation.clips='{tmp_path}/one.jsonl'", "validation.min_clips=1", "validation.repeats=1"
