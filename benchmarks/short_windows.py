"""What the end anchor and the margin do for a 7.5 s window, as a Markdown table.

    python benchmarks/short_windows.py --models tiny.en base

Engines of profile=duplex_lowmem, with and without the anchor and the margin, validated on the bundled clips
(validation=full): the clips themselves, and the edge recordings, which are as long as the engine accepts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from precisions import build, machine

WINDOWS = ((0, 0), (0, 100), (50, 0), (50, 100))  # end anchor's rows, margin's frames
HEADER = ("model", "end anchor", "margin", "clips: WER %", "reference", "edge: WER %", "reference", "runaways",
          "the reference's")


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--precision", default="int8")
    options = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            for anchor, margin in WINDOWS:
                validation, _ = build(Path(folder), "profile=duplex_lowmem", f"model={model}",
                                      f"precision={options.precision}", f"profile.end_anchor={anchor}",
                                      f"profile.margin_frames={margin}", "validation=full", "validation.repeats=1")
                found = validation["summary"]
                cells = [model, anchor, margin, found["wer"], found["reference_wer"], found["edge_wer"],
                         found["edge_reference_wer"], found["runaways"], found["reference_runaways"]]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\n{options.precision}, {found['clips']} clips, {found['edge_clips']} edge recordings; "
          f"{machine(found['versions'], found['threads'])}")


if __name__ == "__main__":
    main()
