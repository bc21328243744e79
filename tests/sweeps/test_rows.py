"""A composition's row: from an outcome or a failure, through a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_factory.sweeps import rows


def test_a_failure_keeps_its_error_and_its_command() -> None:
    row = rows.failed("tiny.en", ["model=tiny.en", "outputs=a b", "quiet=true", "hydra.job.num=1"], "no weights", 4)
    assert (row["status"], row["error"], row["exit_code"]) == ("failed", "no weights", 4)
    assert row["command"] == "python -m whisper_factory model=tiny.en 'outputs=a b'"
    assert row["wer"] is None


def test_rows_are_read_in_the_order_of_their_jobs(tmp_path: Path) -> None:
    for number in (10, 2, 100000, 0):
        rows.write(tmp_path / "rows", number, rows.failed(str(number), [], "", 1))
    (tmp_path / "rows" / ".00011.77").write_text("{")  # a job that was killed while writing
    assert [row["composition"] for row in rows.read(tmp_path / "rows")] == ["0", "2", "10", "100000"]
    assert rows.read(tmp_path / "none") == []


def test_a_row_is_replaced_whole(tmp_path: Path) -> None:
    rows.write(tmp_path, 1, rows.failed("before", [], "", 1))
    rows.write(tmp_path, 1, rows.failed("after", [], "", 1))
    assert [row["composition"] for row in rows.read(tmp_path)] == ["after"]
    assert len(list(tmp_path.iterdir())) == 1


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(1, 100))
def test_percentile(values: list[float], percent: int) -> None:
    ascending = sorted(values)
    found = rows.percentile(ascending, percent)
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    below = [value for value in values if value < found]
    assert len(below) * 100 < percent * len(values)


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (95, 4), (25, 1), (100, 4)])
def test_percentile_of_four(percent: float, value: float) -> None:
    assert rows.percentile([1, 2, 3, 4], percent) == value
