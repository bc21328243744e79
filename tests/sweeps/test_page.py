"""A sweep's report: report.json, report.html, and the plot beside them."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.samples import SWEEP, failed, row, twelve, twenty_four
from whisper_factory.errors import EnvironmentFault
from whisper_factory.sweeps import page, plot
from whisper_factory.sweeps.front import Row, ranked

GOLDEN = Path(__file__).parents[1] / "golden"
VOID = {"meta", "br", "input"}


class Reader(HTMLParser):
    """What a page has: its elements, what they say, and whether each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[tuple[str, str]] = []  # (innermost element, text)
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[str]:
        return [data for element, data in self.said if element == tag]


def written(directory: Path, rows: list[Row], sweep: dict[str, str] = SWEEP) -> tuple[Reader, dict[str, Any]]:
    page.write(directory, sweep, rows)
    return (Reader((directory / "report.html").read_text(encoding="utf-8")),
            json.loads((directory / "report.json").read_text(encoding="utf-8")))


def test_the_report_of_twelve_without_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "installed", lambda: False)
    assert page.write(tmp_path, SWEEP, twelve()) == [tmp_path / "report.json", tmp_path / "report.html"]
    for name in ("report.json", "report.html"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (GOLDEN / f"sweep_{name}").read_text(encoding="utf-8")


@pytest.mark.parametrize("rows", [twelve(), twenty_four()], ids=["12", "24"])
def test_every_composition_is_there_with_its_command_and_what_went_wrong(tmp_path: Path, rows: list[Row]) -> None:
    reader, data = written(tmp_path, rows)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html", "pareto.png", "pareto.svg"}
    assert reader.open == []
    assert [command for command in reader.all("code") if " -m model" not in command] == [
        entry["command"] for entry in data["rows"]]
    assert [entry["on_front"] for entry in data["rows"]] == sorted((entry["on_front"] for entry in data["rows"]),
                                                                   reverse=True)
    errors = [entry["error"] for entry in data["rows"] if entry["error"]]
    assert [said for said in reader.all("p") if said in errors] == errors
    assert sum(tag == "svg" for tag, _ in reader.elements) == 3
    assert data["sweep"] == SWEEP


def test_one_file_that_asks_nothing_of_a_network(tmp_path: Path) -> None:
    reader, _ = written(tmp_path, twelve())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<]+", text.replace(twelve()[-1]["error"] or "", ""))) == names
    for tag, attributes in reader.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert not {"src", "href", "srcset"} & set(attributes)
        assert (attributes.get("xlink:href") or "#").startswith("#")
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#part\d-\w+\)", "", text)
    assert "default-src 'none'" in text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme: dark" in text


def test_ids_in_the_page_are_unique(tmp_path: Path) -> None:
    reader, _ = written(tmp_path, twelve())
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 0


def test_text_is_escaped(tmp_path: Path) -> None:
    nasty = '</code><script>alert("x")</script><b title=\'y\'> & é'
    one = row(composition=nasty, directory=nasty, command=nasty, overrides=[f"model={nasty}"], error=nasty,
              status="missed", exit_code=3)
    reader, data = written(tmp_path, [one, row(overrides=["model=other"])], {**SWEEP, "command": nasty, "key": nasty})
    assert sum(tag == "script" for tag, _ in reader.elements) == 1
    assert not any(tag == "b" for tag, _ in reader.elements)
    assert reader.all("code")[0] == nasty
    assert nasty in reader.all("p")
    assert data["rows"][1]["command"] == nasty


def test_numbers_that_are_not_there(tmp_path: Path) -> None:
    rows = [row(wer=math.nan, latency_ms_p95=math.inf, build_seconds=None),
            row(composition="on-a-device", evidence="preflight", latency_ms_p50=None, peak_mb=None),
            row(composition="not-validated", evidence=None, wer=None), failed()]
    reader, data = written(tmp_path, rows)
    assert [entry["wer"] for entry in data["rows"]] == [4.62, None, None, None]
    assert any("stand-in" in said for said in reader.all("p"))
    assert any("no composition was measured" in said for said in reader.all("p"))
    assert not any(entry["on_front"] for entry in data["rows"])
    assert not (tmp_path / "pareto.png").exists()
    cells = [attributes for tag, attributes in reader.elements if tag == "td" and "data-label" in attributes]
    assert len(cells) == 4 * len(page.COLUMNS)
    assert all(math.isfinite(float(cell["data-value"] or "nan")) for cell in cells if "data-value" in cell)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, twelve())
    monkeypatch.setattr(plot, "installed", lambda: False)
    reader, _ = written(tmp_path, twelve())
    assert "pip install 'whisper-factory[sweep]'" in reader.all("code")
    assert not (tmp_path / "pareto.svg").exists()  # it would show the rows of the run before


def test_an_earlier_report_is_replaced_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, twenty_four())
    whole = (tmp_path / "report.html").read_bytes()
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target.name == "report.html":
            assert target.read_bytes() == whole  # a reader sees the old one until the new one is whole
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(EnvironmentFault, match=r"no space left under .*outputs=DIR moves the outputs"):
        page.write(tmp_path, SWEEP, twelve())
    assert (tmp_path / "report.html").read_bytes() == whole


def test_a_directory_that_cannot_be_made_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "sweeps").write_text("a file", encoding="utf-8")
    with pytest.raises(EnvironmentFault, match=r"cannot write .*outputs=DIR"):
        page.write(tmp_path / "sweeps" / "4f1d", SWEEP, [row()])


def test_the_same_rows_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    for name, rows in (("a", twelve()), ("b", twelve()[::-1])):
        page.write(tmp_path / name, SWEEP, rows)
    for name in ("report.json", "report.html", "pareto.svg", "pareto.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_json_has_the_rows_as_they_were_given(tmp_path: Path) -> None:
    _, data = written(tmp_path, twelve())
    for entry, given in zip(data["rows"], ranked(twelve()), strict=True):
        assert {key: entry[key] for key in given.row} == given.row
