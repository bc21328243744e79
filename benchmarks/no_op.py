"""What a run that has nothing to do takes, and where: Python, Hydra's import, composing, the factory's own part.

    python benchmarks/no_op.py [--recipe quickstart] [--repeats 9]

The recipe is made once, so that everything is cached; then every line is the median over fresh processes.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROBE = """
import sys, time
began = time.perf_counter()
import hydra, omegaconf
import hydra.main, hydra.core.config_store, hydra._internal.utils, hydra._internal.hydra
imported = time.perf_counter()
from whisper_factory import __main__ as entry, job
ran = []
def timed(config, real=job.job):
    started = time.perf_counter()
    try:
        return real(config)
    finally:
        ran.append(time.perf_counter() - started)
timed.__module__ = "whisper_factory.job"
entry.job = timed
started = time.perf_counter()
try:
    entry.main()
except SystemExit as ended:
    assert not ended.code, ended.code
finally:
    all = time.perf_counter() - started
    print(imported - began, all - ran[0], ran[0], file=sys.stderr)
"""


def seconds(command: list[str], cwd: Path) -> tuple[float, str]:
    """Wall time of a process, and the last line of what it told."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - started, (done.stderr.strip().splitlines() or [""])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        overrides = [f"recipe={options.recipe}", f"store.path={work / 'store'}"]
        seconds([sys.executable, "-m", "whisper_factory", *overrides], work)
        whole, empty, parts = [], [], []
        for _ in range(options.repeats):
            whole.append(seconds([sys.executable, "-m", "whisper_factory", *overrides], work)[0])
            empty.append(seconds([sys.executable, "-c", "pass"], work)[0])
            told = seconds([sys.executable, "-c", PROBE, *overrides], work)[1]
            parts.append([float(number) for number in told.split()])
    imports, composing, making = (statistics.median(column) for column in zip(*parts, strict=True))
    print("| part | s |\n|---|---|")
    for name, value in (("Python starts", statistics.median(empty)), ("importing Hydra and OmegaConf", imports),
                        ("reading the recipes and composing", composing), ("planning, the lock, looking in the store",
                        making), ("**the whole command**", statistics.median(whole))):
        print(f"| {name} | {value:.2f} |")
    print(f"\nMedian of {options.repeats}; {platform.machine()}, Python {platform.python_version()}.")


if __name__ == "__main__":
    main()
