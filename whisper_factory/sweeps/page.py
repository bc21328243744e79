"""A sweep's report: report.html for a person, report.json for a program, pareto.png and pareto.svg for both.

The page is one file that asks nothing of a network: its style, its script and its plot are in it, and its
Content-Security-Policy has browsers refuse anything else. Without its script it reads the same, in the order of
`front.ranked`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, get_args

from whisper_factory import store
from whisper_factory.sweeps import plot
from whisper_factory.sweeps.front import OBJECTIVES, Numeric, Ranked, Row, number, ranked
from whisper_factory.sweeps.looks import SCRIPT, STYLE
from whisper_factory.sweeps.table import MISSING, summary

FORMAT = 1
JSON, HTML, PNG, SVG = "report.json", "report.html", "pareto.png", "pareto.svg"
# Heading, which number, how it is written, what it is multiplied by, what it is.
COLUMNS: tuple[tuple[str, Numeric, str, float, str], ...] = (
    ("WER %", "wer", ".2f", 1, "word error rate over the validation's clips"),
    ("p50 ms", "latency_ms_p50", ".0f", 1, "median time for a clip"),
    ("p95 ms", "latency_ms_p95", ".0f", 1, "time that 95 % of the clips do not exceed"),
    ("RTF", "real_time_factor", ".3f", 1, "real-time factor: computing time over audio time"),
    ("peak MB", "peak_mb", ".0f", 1, "peak memory of the measuring process"),
    ("engine MB", "engine_mb", ".1f", 1, "size of the engine's files"),
    ("build s", "build_seconds", ".1f", 1, "convert and build"),
    ("WER, more", "wer_increase", "+.2f", 1, "percentage points more than the float32 engine at 3000 frames"),
    ("same tokens %", "token_agreement", ".1f", 100, "tokens as the float32 engine's"),
)
CUT_SHORT = "The sweep was cut short: what it had not begun is missing here. The same command again goes on from there."
EVIDENCE = {"preflight": "measured on a stand-in with the same weights: no latency, no memory",
            "graph": "measured on the graph alone: no latency, no memory"}


def write(directory: Path, sweep: Mapping[str, Any], rows: Sequence[Row]) -> list[Path]:
    """Write the report of a sweep into its directory, in place of an earlier one.

    Without matplotlib, or where no composition was measured in all three objectives, there is no plot, and the page
    says why.

    Args:
        directory: made if it is not there.
        sweep: its "key" (hex digits), the "command" that runs it, the version of "whisper_factory", and whether the
            rows are its "whole" (taken for granted).
        rows: at least one, in any order.

    Returns:
        What was written: report.json, report.html, and pareto.png and pareto.svg if there is a plot.

    Raises:
        EnvironmentFault: the directory cannot be written.
    """
    entries = ranked(rows)
    drawing = plot.draw(entries) if plot.installed() and any(entry.drawable for entry in entries) else None
    files = {JSON: as_json(sweep, entries).encode(), HTML: as_html(sweep, entries, drawing).encode()}
    if drawing:
        files |= {PNG: drawing.png, SVG: drawing.svg}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            fresh = directory / f".{name}.new"
            fresh.write_bytes(content)
            os.replace(fresh, directory / name)
        for name in {PNG, SVG} - set(files):
            (directory / name).unlink(missing_ok=True)  # of an earlier run, with other rows
    except OSError as error:
        known = store.fault(error, directory, "outputs=DIR moves the outputs")
        if known is None:
            raise
        raise known from error
    return [directory / name for name in files]


def as_json(sweep: Mapping[str, Any], entries: Sequence[Ranked]) -> str:
    """report.json: the rows in order, each with its number, its label and whether it is on the front."""
    rows = [{**entry.row, **{column: number(entry.row, column) for column in get_args(Numeric)},
             "number": entry.number, "label": entry.label, "on_front": entry.on_front} for entry in entries]
    data = {"format": FORMAT, "sweep": dict(sweep), "objectives": list(OBJECTIVES), "rows": rows}
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_html(sweep: Mapping[str, Any], entries: Sequence[Ranked], drawing: plot.Drawing | None) -> str:
    """report.html."""
    headings = "".join(f'<th scope="col" title="{escape(about)}"><button>{escape(heading)}</button></th>'
                       for heading, *_, about in COLUMNS)
    options = "".join(f"<option value={index}>{escape(heading)}</option>"
                      for index, heading in enumerate(["front first", *(heading for heading, *_ in COLUMNS)]))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src \
'unsafe-inline'">
<title>Sweep {escape(sweep["key"][:12])}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Sweep {escape(sweep["key"][:12])}</h1>
<p>{escape(summary(entries))}. On the front is what passed its gates, and has no rival that did and is as good in word
error rate, median latency and peak memory, and better in one of them.</p>
{_command(sweep["command"])}{"" if sweep.get("whole", True) else f'<p class="note">{CUT_SHORT}</p>'}
{_figure(drawing, entries)}
<p class="sort"><label>Order: <select>{options}</select></label></p>
<div class="box">
<table>
<thead><tr><th scope="col"><button>#</button></th><th scope="col" class="name">composition</th>{headings}</tr></thead>
{"".join(_body(entry) for entry in entries)}</table>
</div>
<footer>whisper_factory {escape(str(sweep["whisper_factory"]))}, sweep {escape(sweep["key"])}</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _figure(drawing: plot.Drawing | None, entries: Sequence[Ranked]) -> str:
    if drawing is None:
        why = (f"There is no plot: matplotlib is not installed. <code>{escape(plot.REMEDY)}</code>, then run the same "
               "command again: what is finished is not done twice."
               if any(entry.drawable for entry in entries) else
               "There is no plot: no composition was measured in word error rate, latency and memory.")
        return f'<p class="note">{why}</p>'
    panels = "".join(f'<div class="panel">{part}</div>' for part in drawing.parts[:-1])
    return (f'<figure role="img" aria-label="Word error rate against latency and against memory; the numbers are in '
            f'the table below"><div class="panels">{panels}</div><div class="legend">{drawing.parts[-1]}</div>'
            f"<figcaption>Numbers as in the table. The line joins those on the front that none beats in the two "
            f"numbers of its panel.</figcaption></figure>")


def _body(entry: Ranked) -> str:
    """One composition: a line of numbers, then its command and what went wrong."""
    row = entry.row
    badge = {"passed": "front" if entry.on_front else "passed", "missed": "missed a gate",
             "failed": f"failed, exit code {row['exit_code']}"}[row["status"]]
    kind = "front" if entry.on_front else row["status"]
    cells = "".join(_cell(row, *column) for column in COLUMNS)
    remarks = [row["error"]] if row["error"] else []
    remarks += [EVIDENCE[row["evidence"]]] if row["evidence"] in EVIDENCE else []
    told = "".join(f'<p class="remark">{escape(remark)}</p>' for remark in remarks)
    where = f'<p class="where">{escape(row["directory"] or row["composition"])}</p>'
    return (f'<tbody class="{kind}"><tr><td class="number" data-value="{entry.number}">{entry.number}</td>'
            f'<th scope="row" class="name">{escape(entry.label)} <span class="badge">{badge}</span></th>{cells}'
            f'</tr><tr class="more"><td></td><td colspan="{len(COLUMNS) + 1}">{told}{_command(row["command"])}{where}'
            f"</td></tr></tbody>\n")


def _cell(row: Row, heading: str, column: Numeric, form: str, factor: float, about: str) -> str:
    value = number(row, column)
    shown = MISSING if value is None else format(factor * value, form)
    known = "" if value is None else f' data-value="{value!r}"'
    return f'<td data-label="{escape(heading)}"{known}>{shown}</td>'


def _command(command: str) -> str:
    return f'<div class="command"><code>{escape(command)}</code><button class="copy" hidden>copy</button></div>'
