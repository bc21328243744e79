"""What ways to 4 bits cost in accuracy, against the float32 engine in the same window, as Markdown tables.

    apt-get install flite espeak-ng
    python benchmarks/human_clips.py DIR                                    # if human speech is to be among it
    python benchmarks/int4.py --work outputs/int4 --manifest DIR/clips.jsonl
    python benchmarks/int4.py --work outputs/int4 --rows "precision=int8" "precision=int4_g32 precision.keep=[...]"
    python benchmarks/int4.py --work outputs/int4 --latency                 # on a machine with nothing else to do

A row is what is composed beside model and profile. The recordings are speech.py's, of which none calibrates anything;
every engine hears each once, greedily. *More than float32* is the difference of word error rates, recording by
recording, in percentage points, with a 95 % interval (a bootstrap over sentences, paired.py). *Circles* are recordings
in which the decoder was taken out of one or more, *runaways* those in which it had to be stopped. The work folder keeps
what an engine of the same code has heard before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import paired
import speech
from memory import build
from precisions import machine

from whisper_factory.measure import _versions

FLOAT = "precision=float32"
ROWS = ("precision=int8", "precision=int4", "precision=int4_g128", "precision=int4_g32")
HEADER = ("model", "profile", "engine", "recordings", "n", "WER %", "more than float32", "worse / better", "circles",
          "runaways", "engine MB")
LATENCY_CLIPS, ROUNDS = 8, 3


def size(engine: Path) -> int:
    """Bytes of an engine's files."""
    return sum(path.stat().st_size for path in engine.iterdir())


def compare(spoken: list[speech.Spoken], first: list[dict[str, Any]], second: list[dict[str, Any]],
            apart: bool) -> Iterator[list[str]]:
    """A row for all recordings; `apart`, one for each condition before it."""
    conditions = list(dict.fromkeys(one.condition for one in spoken)) if apart else []
    for condition in (*conditions, "all"):
        chosen = [index for index, one in enumerate(spoken) if condition in (one.condition, "all")]
        said, groups = [spoken[index].text for index in chosen], [spoken[index].sentence for index in chosen]
        one, other = ([report[index]["text"] for index in chosen] for report in (first, second))
        found = paired.difference(said, one, other, groups)
        signs = Counter((b > a) - (b < a) for a, b in zip(paired.errors(said, one), paired.errors(said, other),
                                                          strict=True))
        yield [condition, str(len(chosen)), f"{found.second:.2f}", str(found), f"{signs[1]} / {signs[-1]}",
               str(sum(second[index]["circles"] > 0 for index in chosen)),
               str(sum(second[index]["runaway"] for index in chosen))]


def accuracy(options: argparse.Namespace, work: Path) -> None:
    """Print the table as it grows."""
    spoken = speech.collect(work / "recordings", options.manifest, options.sentences)
    print(f"{len(spoken)} recordings", file=sys.stderr)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for model in options.models:
        language = None if model.endswith(".en") else "en"
        for profile in options.profiles:
            exact: list[dict[str, Any]] = []
            for row in (FLOAT, *options.rows):
                engine = build(work, f"profile={profile}", f"model={model}", *row.split())[1]
                found = speech.hear(engine, spoken, work, options.threads, language=language)
                exact = exact or found
                for cells in compare(spoken, exact, found, options.apart):
                    label = row.replace("precision=", "")
                    print(f"| {' | '.join([model, profile, label, *cells, f'{size(engine) / 1e6:.1f}'])} |", flush=True)


def latency(options: argparse.Namespace, work: Path) -> None:
    """Engines in turn, so that what else a machine does falls on all of them."""
    spoken = speech.collect(work / "recordings", None, LATENCY_CLIPS)
    spoken = [one for one in spoken if one.condition == "bundled"]
    manifest = work / "latency.manifest.json"
    manifest.write_text(json.dumps({"clips": [{"paths": [str(one.path)]} for one in spoken]}), encoding="utf-8")
    print("| model | profile | engine | ms per clip | peak MB |\n|---|---|---|---|---|", flush=True)
    for model in options.models:
        for profile in options.profiles:
            engines = {row: build(work, f"profile={profile}", f"model={model}", *row.split())[1]
                       for row in (FLOAT, *options.rows)}
            times: dict[str, list[float]] = {row: [] for row in engines}
            peaks: dict[str, float] = {}
            for _ in range(ROUNDS):
                for row, engine in engines.items():
                    out = work / "latency.json"
                    subprocess.run([sys.executable, "-m", "whisper_factory.measure", str(engine), str(manifest),
                                    str(out), "--threads", str(options.threads)], check=True)
                    report = json.loads(out.read_text(encoding="utf-8"))
                    times[row].append(1000 * sum(clip["latency_s"] for clip in report["clips"]) / len(spoken))
                    peaks[row] = report["peak_rss_bytes"] / 1e6
            for row in engines:
                print(f"| {model} | {profile} | {row.replace('precision=', '')} | {median(times[row]):.0f} | "
                      f"{peaks[row]:.0f} |", flush=True)


def main() -> None:
    """Accuracy, or latency."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="recordings, engines and reports; kept")
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--profiles", nargs="+", default=["duplex_lowmem", "interactive"])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="what to compose, each in quotes")
    parser.add_argument("--manifest", type=Path, help="human speech, as human_clips.py makes it")
    parser.add_argument("--sentences", type=int, help="only so many, to see that it runs")
    parser.add_argument("--apart", action="store_true", help="a row for each condition too")
    parser.add_argument("--latency", action="store_true", help="latency and memory in place of accuracy")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    (latency if options.latency else accuracy)(options, options.work.resolve())
    print(f"\n{machine(_versions('onnxruntime'), options.threads)}")


if __name__ == "__main__":
    main()
