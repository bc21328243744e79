"""What gpu.py measured, as the Markdown tables of docs/gpu.md.

    python benchmarks/gpu_report.py PAYLOAD OUT/all.json [MORE/all.json ...] [--into docs/gpu.md]

Of measurements that are in several files, the last file's count. Nothing is made up for what is missing: it says "not
run", or "failed". Needs no GPU; of the payload, clips/clips.json alone. With --into, each table replaces the first one
below the heading of its name (a table whose measurements are not in the files stays as it is, and one that has no place
yet is printed).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gpu_engines
import paired

from whisper_factory import backends

Found = Mapping[str, dict[str, Any]]  # name of a measurement -> what it found
Rows = list[list[str]]
MODELS, PRECISIONS, BATCHES = ("tiny.en", "base"), ("float16", "int8", "int4"), (1, 8, 32)
PEERS = {"transformers-compiled": "transformers, SDPA, static cache, decoder compiled",
         "transformers-static": "transformers, SDPA, static cache", "transformers": "transformers, SDPA",
         "openai-whisper": "openai-whisper"}
MB = 1e6


def cell(found: Found, name: str, field: str, digits: int = 0) -> str:
    """A number, or why there is none."""
    if name not in found:
        return "not run"
    return f"{found[name][field]:.{digits}f}" if field in found[name] else "failed"


def compared(found: Found, clips: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str, Any, Any]]:
    """Model and precision, window, what the CPU's engine heard, and what the GPU's did."""
    for model in MODELS:
        for precision in PRECISIONS:
            for window, title in (("short", "short"), ("30s", "30 s")):
                pair = [found.get(f"accuracy/{model}/{precision}/{window}/{where}", {}) for where in ("cpu", "cuda")]
                if all("texts" in one and len(one["texts"]) == len(clips) for one in pair):
                    yield f"{model} {precision}", title, *pair


def accuracy(found: Found, clips: Sequence[Mapping[str, str]]) -> Rows:
    """Word error rates, their difference, and how often chance gives as large a one."""
    said, groups = [clip["text"] for clip in clips], [clip["sentence"] for clip in clips]
    rows, chances = [], []
    for engine, window, cpu, gpu in compared(found, clips):
        apart = paired.difference(said, cpu["texts"], gpu["texts"], groups)
        same = sum(one == other for one, other in zip(cpu["tokens"], gpu["tokens"], strict=True))
        chances.append(paired.chance(said, cpu["texts"], gpu["texts"], groups))
        rows.append([engine, window, f"{apart.first:.2f}", f"{apart.second:.2f}", str(apart), str(same)])
    header = ["model, precision", "window", "CPU", "GPU", "GPU - CPU", "same tokens", "p", "p, Holm"]
    return [header, *([*row, f"{one:.3f}", f"{held:.2f}"]
                      for row, one, held in zip(rows, chances, paired.holm(chances), strict=True))]


def latency(found: Found) -> Rows:
    """Milliseconds of a clip, over the same recordings for all."""
    rows = [[f"ours, {precision}", *(cell(found, f"latency/{model}/{precision}-as-peers", "median_ms", 1)
                                     for model in MODELS)] for precision in PRECISIONS]
    rows += [[title, *(cell(found, f"latency/{model}/{peer}", "median_ms", 1) for model in MODELS)]
             for peer, title in PEERS.items()]
    return [["", *MODELS], *(row for row in rows if set(row[1:]) != {"not run"})]


def throughput(found: Found) -> Rows:
    """Times real time, and ours over the best of the others where all of them ran."""
    systems = ["transformers-static", "transformers", "openai-whisper"]
    rows: Rows = [["recordings", "batch", "ours, float16", "ours, int8", "recordings a second, float16",
                   "transformers, static", *systems[1:], "ours over the best"]]
    for ours, theirs, title in (("30s", "30s", "30 s"), ("clips", "clips", "7.5 s, windows of 30 s"),
                                ("clips-short", "clips", "7.5 s, short windows")):
        for batch in BATCHES:
            names = [f"throughput/{ours}/{batch}/{precision}" for precision in ("float16", "int8")]
            peers = [f"throughput/{theirs}/{batch}/{peer}" for peer in systems]
            if not any(name in found for name in names):
                continue
            speeds = [found.get(name, {}).get("real_time") for name in (names[0], *peers)]
            ratio = f"{speeds[0] / max(speeds[1:]):.1f}" if all(speeds) else "not told"
            rows.append([title, str(batch), *(cell(found, name, "real_time") for name in names),
                         cell(found, names[0], "recordings_a_second"),
                         *(cell(found, name, "real_time") for name in peers), ratio])
    return without_empty(rows)


def without_empty(rows: Rows) -> Rows:
    """Without columns of which nothing was run."""
    kept = [column for column in zip(*rows, strict=True) if set(column[1:]) != {"not run"}]
    return [list(row) for row in zip(*kept, strict=True)]


def limits(found: Found) -> Rows:
    """Steps beside what the card's memory could give. Empty if its bandwidth was not measured."""
    bandwidth = found.get("limits/bandwidth", {}).get("bytes_a_second")
    rows: Rows = [["", "batch", "bytes", "step", "of the bandwidth", "without graphs"]]
    for model in MODELS:
        for precision in PRECISIONS:
            for batch in (1, 32):
                name = f"limits/steps/{model}/{precision}/{batch}"
                step = found.get(f"{name}/graphs", {})
                if not bandwidth or "step_us" not in step:
                    continue
                plain = cell(found, f"{name}/plain", "step_us")
                share = step["bytes"] / (bandwidth * step["step_us"] / 1e6)
                rows.append([f"{model} {precision}", str(batch), f"{step['bytes'] / MB:.1f} MB",
                             f"{step['step_us']:.0f} us", f"{100 * share:.1f} %",
                             plain if plain == "not run" else f"{plain} us"])
    return rows


def memory(found: Found) -> Rows:
    """What the driver counted, and what the plan says as the code now is."""
    rows: Rows = [["engine", "loaded", "plan", "highest", "plan", "off by"]]
    for name, one in found.items():
        if not name.startswith("memory/") or "peak" not in one:
            continue
        _, model, precision, shape, mode, *_ = [*name.split("/"), "contiguous"]  # the first runs had no other
        spec = gpu_engines.declared(model, precision, gpu_engines.profile(shape), "cuda",
                                    "paged" if mode == "paged" else "contiguous")
        parts = backends.get(spec.backend).footprint(spec)
        load, peak = sum(part.load for part in parts), sum(part.peak for part in parts)
        off = peak - one["peak"]
        rows.append([f"{model} {precision} {shape} {mode}", f"{one['loaded'] / MB:.0f}", f"{load / MB:.0f}",
                     f"{one['peak'] / MB:.0f}", f"{peak / MB:.0f}",
                     f"{round(off / MB):+d} MB ({round(100 * off / one['peak'], 1) + 0.0:+.1f} %)"])
    return rows


def integers(found: Found) -> Rows:
    """Matrices packed for TensorRT-LLM, multiplied by on the GPU: the worst of each kind."""
    rows: Rows = [["bits", "packed for", "matrices", "largest error", "with one byte changed, at least"]]
    kinds: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for one in found.get("integers", {}).get("matrices", []):
        kinds.setdefault((one["bits"], one["family"]), []).append(one)
    for (bits, family), same in kinds.items():
        rows.append([str(bits), family, str(len(same)), f"{max(one['error'] for one in same):.1e}",
                     f"{min(one['error_with_one_byte_changed'] for one in same):.1e}"])
    return rows


def command(found: Found) -> Rows:
    """The command line: seconds of each, and what validation found."""
    steps = ["plan", "run", "run again", "hear"]
    rows: Rows = [["composition", *(f"{step}, s" for step in steps), "WER", "the reference's", "agreement", "gates"]]
    for name, one in found.items():
        if not name.startswith("command/") or "commands" not in one:
            continue
        took = {step["name"]: f"{step['seconds']:.1f}" for step in one["commands"]}
        validated = one["validation"] or {"summary": {}, "passed": None}
        percent = [f"{validated['summary'].get(field, float('nan')):.2f}" for field in ("wer", "reference_wer")]
        agreed = validated["summary"].get("token_agreement", float("nan"))
        rows.append([name.removeprefix("command/").replace("/", " "), *(took.get(step, "not run") for step in steps),
                     *percent, f"{100 * agreed:.2f} %", "passed" if validated["passed"] else "missed"])
    return rows


def markdown(rows: Rows, words: int = 1) -> str:
    """A table, its numbers to the right: all but the first `words` columns."""
    ruler = ["---"] * words + ["--:"] * (len(rows[0]) - words)
    return "\n".join([f"| {' | '.join(rows[0])} |".replace("|  |", "| |"), f"|{'|'.join(ruler)}|",
                      *(f"| {' | '.join(row)} |" for row in rows[1:])])


def tables(found: Found, clips: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The heading of each, and the table; without those that would be empty."""
    made = {"Accuracy": (accuracy(found, clips), 2), "Latency": (latency(found), 1),
            "Throughput": (throughput(found), 1), "How far from the limit": (limits(found), 1),
            "Memory": (memory(found), 1), "TensorRT-LLM's integers": (integers(found), 1),
            "The command line": (command(found), 1)}
    return {heading: markdown(rows, words) for heading, (rows, words) in made.items() if len(rows) > 1}


def replaced(text: str, heading: str, table: str) -> str:
    """A document with a table in the place of the first one below a heading.

    Raises:
        ValueError: there is no such heading, or no table below it.
    """
    pattern = re.compile(rf"(^### {re.escape(heading)}\n(?:(?!#).*\n)*?)((?:^\|.*\n)+)", re.MULTILINE)
    changed, count = pattern.subn(lambda match: match[1] + table + "\n", text, count=1)
    if not count:
        raise ValueError(f"no table below a heading '### {heading}'")
    return changed


def main() -> None:
    """Print the tables, or put them in a document."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    flags.add_argument("payload", type=Path)
    flags.add_argument("results", type=Path, nargs="+")
    flags.add_argument("--into", type=Path, help="a document whose tables are to be replaced")
    wanted = flags.parse_args()
    read = [json.loads(path.read_text(encoding="utf-8")) for path in wanted.results]
    found = {name: one for file in read for name, one in file.items() if name not in ("about", "earlier")}
    clips = json.loads((wanted.payload / "clips/clips.json").read_text(encoding="utf-8"))
    made = tables(found, clips)
    if wanted.into:
        text = wanted.into.read_text(encoding="utf-8")
        for heading, table in made.items():
            try:
                text = replaced(text, heading, table)
            except ValueError as error:  # there is no place for it yet
                print(f"{error}; it would be:\n\n{table}\n")
        wanted.into.write_text(text, encoding="utf-8")
        return
    for file, path in zip(read, wanted.results, strict=True):
        print(f"{path}: {json.dumps([*file.get('earlier', []), file.get('about')])}")
    for point in sorted({name.partition("/")[0] for name in found}):
        runs = {one.get("run", "not told") for name, one in found.items() if name.partition("/")[0] == point}
        print(f"{point}: {len(runs)} runs: {', '.join(sorted(runs))}")
    for heading, table in made.items():
        print(f"\n### {heading}\n\n{table}")


if __name__ == "__main__":
    main()
