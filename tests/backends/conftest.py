"""Engines built once for all these tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends.onnxruntime.making import build, make_checkpoint, tiny_en
from tests.tiny_model import tiny_weights

Lookup = Callable[[str], Path]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    """Precision -> a checkpoint of the random model."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def find(precision: str) -> Path:
        if precision not in made:
            made[precision] = make_checkpoint(root / precision, tiny_weights(), precision)
        return made[precision]

    return find


@pytest.fixture(scope="session")
def engines(checkpoints: Lookup, tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    """Precision -> an engine directory of the random model."""
    root, made = tmp_path_factory.mktemp("engines"), {}

    def find(precision: str) -> Path:
        if precision not in made:
            made[precision] = build(checkpoints(precision), root / precision)
        return made[precision]

    return find


@pytest.fixture(scope="session")
def real_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.en in float32."""
    return make_checkpoint(tmp_path_factory.mktemp("real") / "checkpoint", tiny_en(), "float32")


@pytest.fixture(scope="session")
def real_engine(real_checkpoint: Path) -> Path:
    """tiny.en's float32 engine."""
    return build(real_checkpoint, real_checkpoint.parent / "engine")
