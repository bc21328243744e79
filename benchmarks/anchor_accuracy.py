"""What short windows cost in accuracy: windows by the rule against 3000 frames, paired, as Markdown tables.

    apt-get install flite espeak-ng
    python benchmarks/human_clips.py DIR                                    # if human speech is to be among it
    python benchmarks/anchor_accuracy.py --work outputs/anchor --manifest DIR/clips.jsonl

The recordings are speech.py's: the bundled sentences as they are, in other voices and rates, and with noise; and a
manifest's. Each is heard by one engine twice, greedily: in a window of max(750, clip + 100) frames with the end anchor
(padding_strategy=nopad), and in one of 3000 (max); and by the engine of profile=duplex_lowmem, whose window is always
the same. What differs is given in percentage points with a 95 % interval (see paired.py). Then the recordings that the
short window hears worse by three words or more, or runs away on.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import paired
import speech
from memory import build
from precisions import machine

from whisper_factory.measure import _versions

MUCH_WORSE = 3  # words
LONG = ("profile=interactive", "profile.max_input_len=3000", "profile.margin_frames=0")
HEADER = ("model", "precision", "window", "recordings", "n", "WER % at 3000 frames", "WER %", "difference, points",
          "worse / better", "runaways at 3000", "runaways")


def compare(label: list[str], spoken: list[speech.Spoken], full: list[dict[str, Any]],
            short: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each condition, one for all, and one without runaways, a few of which outweigh all other errors."""
    conditions = list(dict.fromkeys(one.condition for one in spoken))
    rows = []
    calm = [index for index in range(len(spoken)) if not (full[index]["runaway"] or short[index]["runaway"])]
    for condition in (*conditions, "all", "all on which neither runs away"):
        chosen = [index for index, one in enumerate(spoken) if condition in (one.condition, "all")] or calm
        said, groups = [spoken[index].text for index in chosen], [spoken[index].sentence for index in chosen]
        one, other = ([found[index]["text"] for index in chosen] for found in (full, short))
        found = paired.difference(said, one, other, groups)
        signs = Counter((b > a) - (b < a) for a, b in zip(paired.errors(said, one), paired.errors(said, other),
                                                          strict=True))
        runaways = [str(sum(report[index]["runaway"] for index in chosen)) for report in (full, short)]
        rows.append([*label, condition, str(len(chosen)), f"{found.first:.2f}", f"{found.second:.2f}", str(found),
                     f"{signs[1]} / {signs[-1]}", *runaways])
    return rows


def failures(label: list[str], spoken: list[speech.Spoken], full: list[dict[str, Any]],
             short: list[dict[str, Any]]) -> list[str]:
    """Recordings that the short window hears much worse, or runs away on where 3000 frames do not."""
    said = [one.text for one in spoken]
    errors = [paired.errors(said, [entry["text"] for entry in found]) for found in (full, short)]
    return [f"- {' '.join(label)}, {one.path.stem} ({one.condition}, {b['seconds']:.1f} s): {few} errors, then {many}"
            f"{', a runaway' if b['runaway'] else ''}: \"{b['text']}\""
            for one, a, b, few, many in zip(spoken, full, short, *errors, strict=True)
            if many - few >= MUCH_WORSE or (b["runaway"] and not a["runaway"])]


def main() -> None:
    """Print the table as it grows, then the failures."""
    parser = speech.arguments(__doc__)
    parser.add_argument("--precisions", nargs="+", default=["int8", "int4"])
    options = parser.parse_args()
    work: Path = options.work.resolve()
    spoken = speech.collect(work / "recordings", options.manifest, options.sentences)
    print(f"{len(spoken)} recordings", file=sys.stderr)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    failed: list[str] = []
    for model in options.models:
        language = None if model.endswith(".en") else "en"
        for precision in options.precisions:
            of = (f"model={model}", f"precision={precision}")
            engine = build(work, *LONG, *of)[1]
            full = speech.hear(engine, spoken, work, options.threads, language=language, padding_strategy="max")
            rule = speech.hear(engine, spoken, work, options.threads, language=language, padding_strategy="nopad")
            duplex = speech.hear(build(work, "profile=duplex_lowmem", *of)[1], spoken, work, options.threads,
                                 language=language)
            for window, short in (("by the rule", rule), ("duplex_lowmem's", duplex)):
                for row in compare([model, precision, window], spoken, full, short):
                    print(f"| {' | '.join(row)} |", flush=True)
                failed += failures([model, precision, window], spoken, full, short)
    print(f"\nWorse by {MUCH_WORSE} words or more, or running away where 3000 frames do not:\n")
    print("\n".join(failed or ["none"]))
    print(f"\n{machine(_versions('onnxruntime'), options.threads)}")


if __name__ == "__main__":
    main()
