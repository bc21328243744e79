"""What making an engine takes, step by step, as a Markdown table.

    python benchmarks/build_times.py [--repeats 3]

tiny.en for short turns, from its installed package to a validated engine; and random weights of small.en's size, from
the float16 weights that a store already has to a built engine (not validated: nobody trained them). Every run begins
with a store that has the fetched weights and nothing else; the median of each step, and of the whole process. (An
engine that is validated is converted and built while its reference is heard, whose time includes that.)
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peer_running import environment
from precisions import machine

from whisper_factory.measure import _versions
from whisper_factory.threads import physical_cores

SMALL = {"n_audio_state": 768, "n_audio_head": 12, "n_audio_layer": 12, "n_text_state": 768, "n_text_head": 12,
         "n_text_layer": 12}
SORTS = {
    "tiny.en, int8, duplex_lowmem, validated": ("model=tiny.en", "profile=duplex_lowmem"),
    "small.en's size, int8, interactive, built": (
        "model=debug", "profile=interactive", "validation=none",
        *(f"model.dimensions.{name}={size}" for name, size in SMALL.items())),
}
STEPS = ("convert", "build", "reference", "validate")
DONE = re.compile(r"^(\w+)\s+done in ([\d.]+) s", re.MULTILINE)


def make(scratch: Path, *overrides: str) -> tuple[float, dict[str, float]]:
    """Seconds of the process, and of its steps."""
    command = [sys.executable, "-m", "whisper_factory", f"outputs={scratch / 'outputs'}",
               f"store.path={scratch / 'store'}", *overrides]
    started = time.monotonic()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - started, {name: float(took) for name, took in DONE.findall(done.stdout + done.stderr)}


def main() -> None:
    """Make each as often as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"| engine | {' s | '.join(STEPS)} s | the whole command s |\n|{'---|' * (len(STEPS) + 2)}")
    for name, overrides in SORTS.items():
        found = []
        with tempfile.TemporaryDirectory() as folder:
            fetched = Path(folder) / "fetched"
            make(fetched, *overrides, "stop_after=fetch")
            for number in range(options.repeats):
                scratch = Path(folder) / str(number)
                shutil.copytree(fetched, scratch)
                found.append(make(scratch, *overrides))
                shutil.rmtree(scratch)
        steps = [[steps[step] for _, steps in found if step in steps] for step in STEPS]
        row = [f"{statistics.median(taken):.1f}" if taken else "" for taken in steps]
        print(f"| {name} | {' | '.join(row)} | {statistics.median(whole for whole, _ in found):.1f} |", flush=True)
    print(f"\n{machine(_versions('onnxruntime'), physical_cores())}; median of {options.repeats}.")


if __name__ == "__main__":
    main()
