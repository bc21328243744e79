"""Fixtures: the command line in a process of its own, over one store for the whole session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from whisper_factory import clips

Command = Callable[..., subprocess.CompletedProcess[str]]


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


@pytest.fixture
def factory(python: Command, shared_store: Path, tmp_path: Path) -> Command:
    """Run `python -m whisper_factory OVERRIDES...` in an empty working directory, over the shared store."""

    def run(*overrides: object, **environment: str) -> subprocess.CompletedProcess[str]:
        first = 1 if str(overrides[0]).startswith("-") else 0  # argparse wants the overrides in one piece
        arguments = [*overrides[:first], f"store.path={shared_store}", *overrides[first:]]
        return python("whisper_factory", *arguments, cwd=tmp_path, **environment)

    return run


@pytest.fixture
def one_clip(tmp_path: Path) -> tuple[str, ...]:
    """Overrides for a validation of a second: the first of the bundled clips, from a manifest."""
    clip = clips.bundled("quick")[0]
    (tmp_path / "one.jsonl").write_text(json.dumps({"audio": str(clip.path), "text": clip.text}), encoding="utf-8")
    return f"validation.clips='{tmp_path}/one.jsonl'", "validation.min_clips=1", "validation.repeats=1"
