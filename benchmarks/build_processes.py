"""Where the processors' time goes while an engine is made: seconds of each process, as a Markdown table.

    python benchmarks/build_processes.py [--repeats 3]

tiny.en for short turns, from its installed package to a validated engine, with an empty store; on Linux, where
/proc tells what each process has used. What it used in its last moments, 50 ms at most, is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from peer_running import environment
from precisions import machine

from whisper_factory.command import _tree
from whisper_factory.measure import _versions
from whisper_factory.threads import physical_cores

NAMES = ("the command", "the reference, first", "the reference, second", "the engine alone", "edge recordings")
LOOK_SECONDS = 0.05


def used(pid: int) -> float:
    """Seconds of processors that a process has used, its threads that have ended too (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make(scratch: Path) -> tuple[float, list[float]]:
    """Seconds of the whole, and of each process, in the order in which they started."""
    command = [sys.executable, "-m", "whisper_factory", "recipe=quickstart", "quiet=true",
               f"outputs={scratch / 'outputs'}", f"store.path={scratch / 'store'}"]
    found: dict[int, float] = {}
    started = time.monotonic()
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as child:
        while child.poll() is None:
            for pid in _tree(child.pid):
                with suppress(OSError):  # it is gone
                    found[pid] = used(pid)
            time.sleep(LOOK_SECONDS)
        if child.returncode or len(found) != len(NAMES):
            sys.exit(f"exit code {child.returncode}, {len(found)} processes; wanted {len(NAMES)}")
    return time.monotonic() - started, list(found.values())


def main() -> None:
    """Make it as often as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    walls, processes = [], []
    for _ in range(parser.parse_args().repeats):
        with tempfile.TemporaryDirectory() as folder:
            wall, each = make(Path(folder))
        walls.append(wall)
        processes.append(each)
    print("| process | s |\n|---|--:|")
    for name, taken in zip(NAMES, zip(*processes, strict=True), strict=True):
        print(f"| {name} | {median(taken):.1f} |")
    print(f"\nMedians of {len(walls)} runs, which took {min(walls):.1f} to {max(walls):.1f} s. "
          f"{machine(_versions('onnxruntime'), physical_cores())}.")


if __name__ == "__main__":
    main()
