"""The table that a sweep prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.samples import failed, row, twelve, twenty_four
from whisper_factory.sweeps.table import table

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_as_it_is_printed(width: int) -> None:
    assert table(twelve(), width) == (GOLDEN / "sweep.txt").read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 400])
def test_the_table_fits_and_loses_nothing_of_long_names(width: int) -> None:
    long = [row(composition=f"{model}-int8-a_profile_with_a_long_name-contiguous-onnxruntime", overrides=[])
            for model in ("large-v3-turbo", "tiny.en", "tiny.en")]
    printed = table([*long, row(composition="q" * 150, overrides=[])], width).split("\n\n")[0]
    assert all(len(line) <= width for line in printed.splitlines())
    assert printed.count("q") == 150
    assert printed.count("turbo") == 1


def test_missing_numbers_are_dashes() -> None:
    nothing = dict.fromkeys(("wer", "latency_ms_p95", "real_time_factor", "peak_mb"))
    rows = [row(composition="a"), row(composition="not-validated", latency_ms_p50=float("nan"), **nothing)]
    line = table(rows, 80).splitlines()[3]
    assert line.split() == ["2", "not-validated", "-", "-", "-", "-", "-", "44.0", "0.6"]


def test_every_failure_is_told_with_its_exit_code_error_and_command() -> None:
    printed = table([row(), failed(composition="broken", error="no space left", command="python -m it"),
                     row(composition="off", status="missed", exit_code=3, error=None)])
    assert "3 failed (exit code 4): no space left\n  python -m it" in printed
    assert "2 missed a gate (exit code 3)\n" in printed
    assert "3 compositions, 1 on the Pareto front, 1 missed a gate, 1 failed" in printed


def test_a_sweep_in_which_all_failed_and_one_of_one() -> None:
    assert "1 composition, 0 on the Pareto front, 1 failed" in table([failed()])
    assert "1 composition, 1 on the Pareto front" in table([row()])


def test_through_a_pipe_it_is_a_hundred_columns_wide_unless_columns_says_otherwise(
        monkeypatch: pytest.MonkeyPatch) -> None:
    code = ("from tests.sweeps.samples import row\nfrom whisper_factory.sweeps.table import table\n"
            "print(table([row(composition='x' * 150)]))")
    for columns, expected in (("", 100), ("70", 70)):
        monkeypatch.setenv("COLUMNS", columns)
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        assert max(map(len, done.stdout.split("\n\n")[0].splitlines())) == expected


def test_it_needs_no_matplotlib_and_no_numpy() -> None:
    code = ("import sys\nfrom tests.sweeps.samples import twelve\nfrom whisper_factory.sweeps import page, table\n"
            "table.table(twelve())\nsys.exit(str({'numpy', 'matplotlib', 'hydra'} & set(sys.modules) or ''))")
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.strip() == ""


def test_numbers_of_two_digits_keep_the_columns() -> None:
    lines = table(twenty_four(), 120).split("\n\n")[0].splitlines()
    assert len({len(line) for line in lines[2:25]}) == 1
