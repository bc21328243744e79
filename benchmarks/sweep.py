"""A sweep of 12 compositions against the same 12 made one by one, each with an empty store. A Markdown table.

    python benchmarks/sweep.py [--work DIR]

What is counted are the steps that really ran, from what the runs said.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

AXES = {"model": ("tiny.en", "base"), "precision": ("int8", "int4"),
        "profile": ("interactive", "duplex_lowmem", "batch")}
STEPS = ("fetch", "convert", "build", "reference", "validate")
MISSED = 3  # int4 misses its gate here; it is made all the same


def run(where: Path, store: Path, *overrides: str) -> tuple[float, Counter[str]]:
    """Seconds of one command, and how often each step was done in it."""
    where.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "whisper_factory", *overrides, f"store.path={store}"], cwd=where,
                          capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode not in (0, MISSED):
        raise SystemExit(done.stderr)
    return seconds, Counter(re.findall(r"^(\w+) +done in", done.stderr, re.MULTILINE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="an empty directory to work in (default: a temporary one)")
    chosen = parser.parse_args().work
    with tempfile.TemporaryDirectory() as scratch:
        work = (chosen or Path(scratch)).absolute()
        grid = [f"{axis}={','.join(members)}" for axis, members in AXES.items()]
        together, shared = run(work / "sweep", work / "sweep-store", "-m", *grid)
        again, none = run(work / "sweep", work / "sweep-store", "-m", *grid)
        apart, alone = 0.0, Counter[str]()
        for number, members in enumerate(itertools.product(*AXES.values())):
            words = [f"{axis}={member}" for axis, member in zip(AXES, members, strict=True)]
            seconds, steps = run(work / f"alone{number}", work / f"store{number}", *words)
            apart, alone = apart + seconds, alone + steps
        report = next((work / "sweep" / "outputs" / "sweeps").glob("*/report.json"))
        made = len(json.loads(report.read_text(encoding="utf-8"))["rows"])
    print(f"| {made} compositions | wall, s | {' | '.join(STEPS)} |\n|---|---|{'---|' * len(STEPS)}")
    for name, seconds, counted in (("one by one, empty stores", apart, alone), ("one sweep", together, shared),
                                   ("the same sweep again", again, none)):
        print(f"| {name} | {seconds:.1f} | {' | '.join(str(counted[step]) for step in STEPS)} |")
    print(f"\n{apart / together:.2f} times as quick. {platform.machine()}, Python {platform.python_version()}.")


if __name__ == "__main__":
    main()
