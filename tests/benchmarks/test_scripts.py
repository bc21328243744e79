"""Every script can be imported and says what it is for: a benchmark is run so seldom that nothing else would tell."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py"))


def with_arguments(script: str) -> bool:
    """Whether it is a command that has flags, by its text."""
    text = (BENCHMARKS / script).read_text(encoding="utf-8")
    return "__main__" in text and ("ArgumentParser(" in text or "arguments(__doc__)" in text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_can_be_imported(script: str) -> None:
    assert runpy.run_path(str(BENCHMARKS / script), run_name=script.removesuffix(".py"))["__doc__"]


@pytest.mark.parametrize("script", list(filter(with_arguments, SCRIPTS)))
def test_help_says_what_it_measures(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: {script}")
    assert told.split("\n\n")[1].strip(), "what it is for"
