"""Stamps: what they hold each other and the files against."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whisper_factory.backends.tensorrt_llm import stamp
from whisper_factory.errors import UserError


@pytest.fixture
def stamped(tmp_path: Path) -> Path:
    """Four files and their stamp."""
    for name in stamp.FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    stamp.write_stamp(tmp_path, {
        "generation": "G1", "layout": "sm80", "version": "0.12.0", "compute_capability": "8.7", "precision": "int8",
        "quant_algo": "W8A16", "packed_by": {"whisper_factory": "0", "numpy": "0"},
        "files": {name: stamp.describe(tmp_path / name) for name in stamp.FILES},
    })
    return tmp_path


def change(directory: Path, alter: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / stamp.STAMP
    content = json.loads(path.read_text())
    alter(content)
    path.write_text(json.dumps(content))


def test_round_trip(stamped: Path) -> None:
    about = stamp.read_stamp(stamped)
    stamp.verify(stamped, about)
    assert about["format"] == 1
    assert sorted(about["files"]) == sorted(stamp.FILES)
    text = (stamped / stamp.STAMP).read_text()
    assert text == json.dumps(about, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize(("alter", "said"), [
    (lambda content: content.update(format=2), "stamp format 2, this version reads 1"),
    (lambda content: content.update(layout="sm100"), "layout: not as"),
    (lambda content: content.update(generation="G3"), "generation: not as"),
    (lambda content: content.update(quant_algo="W4A16"), "quant_algo: not as"),
    (lambda content: content.update(precision="int2"), "damaged"),
    (lambda content: content.update(version="0.19.0"), "no checkpoint generation"),
    (lambda content: content.update(extra=1), "extra: not as"),
    (lambda content: content.pop("layout"), "damaged"),
    (lambda content: content["files"].pop("encoder/config.json"), "files: not as"),
    (lambda content: content["files"].update({"../outside": {"bytes": 0, "sha256": ""}}), "files: not as"),
])
def test_a_stamp_that_contradicts_itself(stamped: Path, alter: Callable[[dict[str, Any]], Any], said: str) -> None:
    change(stamped, alter)
    with pytest.raises(UserError, match=said) as caught:
        stamp.read_stamp(stamped)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '"format"', "\x00"])
def test_no_json(stamped: Path, text: str) -> None:
    (stamped / stamp.STAMP).write_text(text)
    with pytest.raises(UserError, match=r"stamp\.json' is damaged"):
        stamp.read_stamp(stamped)


def test_no_stamp(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no stamp\.json.*which GPU its integers are packed for cannot be known"):
        stamp.read_stamp(tmp_path)


@pytest.mark.parametrize("name", stamp.FILES)
def test_files_that_are_not_the_stamped_ones(stamped: Path, name: str) -> None:
    about = stamp.read_stamp(stamped)
    (stamped / name).write_text(name.swapcase())
    with pytest.raises(UserError, match=f"{name}' is not the file"):
        stamp.verify(stamped, about)
    (stamped / name).unlink()
    with pytest.raises(UserError, match=f"{name}' is missing"):
        stamp.verify(stamped, about)
