"""The Pareto plot: the same bytes for the same rows, every composition numbered, nothing over anything else."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sweeps.samples import failed, row, twelve, twenty_four
from whisper_factory.sweeps import legend, placing, plot
from whisper_factory.sweeps.front import Row, ranked

DIGEST = """
import hashlib
from tests.sweeps.samples import twelve
from whisper_factory.sweeps import front, plot
drawing = plot.draw(front.ranked(twelve()))
print(hashlib.sha256(drawing.png + drawing.svg + "".join(drawing.parts).encode()).hexdigest())
"""


def texts(svg: str | bytes) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter()
            if element.tag.endswith("}text")]


def test_the_same_rows_are_the_same_bytes_in_another_process_with_other_settings(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = plot.draw(ranked(twelve()))
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.grid: True\nsvg.hashsalt: another\n", encoding="utf-8")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path))
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    done = subprocess.run([sys.executable, "-c", DIGEST], stdout=subprocess.PIPE, text=True, check=True)
    here = hashlib.sha256(drawing.png + drawing.svg + "".join(drawing.parts).encode()).hexdigest()
    assert done.stdout.strip() == here


def test_it_leaves_the_settings_of_whoever_calls_it_alone() -> None:
    import matplotlib

    matplotlib.rcParams["font.size"] = 17.0
    try:
        plot.draw(ranked(twelve()))
        assert matplotlib.rcParams["font.size"] == 17.0
    finally:
        matplotlib.rcdefaults()


@pytest.mark.parametrize("rows", [twelve(), twenty_four()], ids=["12", "24"])
def test_every_measured_composition_has_its_number_in_both_panels_and_in_the_key(rows: list[Row]) -> None:
    entries = ranked(rows)
    drawing = plot.draw(entries)
    whole, panels = texts(drawing.svg), [texts(part) for part in drawing.parts[:2]]
    for entry in entries:
        times = 1 if entry.drawable else 0
        assert whole.count(entry.label) == times
        assert all(panel.count(str(entry.number)) >= times for panel in panels)
    for value in ("tiny.en", "base", "int8", "int4", "on the front", "missed a gate"):
        assert value in texts(drawing.parts[2])


def test_a_page_can_hold_all_parts() -> None:
    parts = plot.draw(ranked(twelve())).parts
    ids = [element.get("id") for part in parts for element in ElementTree.fromstring(part).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for part in parts:
        assert part.startswith("<svg")
        assert legend.INK not in part
        assert "currentColor" in part


ODD: list[list[Row]] = [
    [row()],
    [row(), row(key="1" * 64), row(key="2" * 64)],
    [row(wer=0.0), row(wer=109.28, peak_mb=6200.0)],
    [row(wer=0.0, latency_ms_p50=0.0, peak_mb=0.0)],
    [row(status="missed"), failed()],
    [row(composition="a <b> & $x_1$ \"c\" é 語")],
    [row(overrides=[f"model=m{index}", f"precision=p{index}"], wer=float(index)) for index in range(26)],
    [row(wer=5.0 + index / 1e3, peak_mb=138.0 + index / 1e3) for index in range(12)],
]


@pytest.mark.parametrize("rows", ODD)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_odd_sweeps_are_drawn(rows: list[Row]) -> None:
    drawing = plot.draw(ranked(rows))
    assert drawing.png.startswith(b"\x89PNG")
    assert any(entry.label in texts(drawing.svg) for entry in ranked(rows))


def test_shapes_and_colours_tell_every_value_of_two_axes_apart() -> None:
    style = legend.Style.of(ranked(twenty_four()))
    assert len(set(style.shapes.values())) == 3
    assert len(set(style.colours.values())) == 4
    looks = {(entry.row["overrides"][0], entry.row["overrides"][1]): style.of_entry[entry.number]
             for entry in ranked(twenty_four())}
    assert len(set(looks.values())) == len(looks) == 12


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(20, 380), st.floats(20, 280)), min_size=1, max_size=24))
def test_numbers_stay_in_the_frame(points: list[tuple[float, float]]) -> None:
    names = [str(index) for index in range(len(points))]
    for point, name, offset in zip(points, names, placing.beside(points, names, 9, (0, 0, 400, 300)), strict=True):
        middle = point[0] + offset[0], point[1] + offset[1]
        assert middle[0] - placing.DIGIT * len(name) / 2 >= 0
        assert middle[0] + placing.DIGIT * len(name) / 2 <= 400
        assert 0 <= middle[1] - placing.TALL / 2 <= middle[1] + placing.TALL / 2 <= 300


def test_numbers_of_crowded_points_cover_neither_points_nor_each_other() -> None:
    points = [(100.0 + 5 * column, 100.0 + 6 * line) for column in range(4) for line in range(3)]
    line = [(0.0, 130.0), (110.0, 130.0), (110.0, 60.0)]
    names = [str(index + 1) for index in range(12)]
    boxes = [placing.box((x + dx, y + dy), placing.DIGIT * len(name), placing.TALL) for (x, y), name, (dx, dy)
             in zip(points, names, placing.beside(points, names, 9, (0, 0, 400, 300), line), strict=True)]
    markers = [placing.box(point, 9, 9) for point in points]
    assert all(placing.overlap(one, marker) == 0 for one in boxes for marker in markers)
    assert all(placing.overlap(one, other) == 0 for one in boxes for other in boxes if one is not other)
    assert all(placing.overlap(one, (0.0, 129.9, 110.0, 130.1)) == 0 for one in boxes)


def test_half_an_installation_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plot.installed()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it fails
    assert not plot.installed()
