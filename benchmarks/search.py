"""Look for good compositions of tiny.en with Optuna: what was found, as a Markdown table, and the Pareto plot.

    python benchmarks/search.py --trials 24 --plot docs/search.svg

Everything is made from scratch in a temporary store (the weights are fetched once before the clock starts), then the
same search is run again over what is finished. What differs between two runs of this script is what was measured,
and so what the search went on to try.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

SPACE = ("hydra/sweeper=search", "model=tiny.en")
HEADER = ("composition", "WER %", "p50 ms", "peak MB", "engine MB")


def run(folder: Path, *arguments: str) -> float:
    """Run the factory over the folder's store; the seconds that it took."""
    command = [sys.executable, "-m", "whisper_factory", *arguments, f"store.path={folder / 'store'}",
               f"outputs={folder / 'outputs'}", "quiet=true"]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 3):  # 3: one of them missed a gate, which is a result
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}")
    return time.monotonic() - started


def machine() -> str:
    """The machine and the versions behind the numbers."""
    from importlib.metadata import version

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    tools = ", ".join(f"{tool} {version(tool)}" for tool in ("onnxruntime", "optuna", "hydra-optuna-sweeper"))
    return f"{name}, {os.cpu_count()} cores; Python {platform.python_version()}, {tools}"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The front, best WER first."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + "---|" * len(HEADER)]
    for row in rows:
        if row["on_front"]:
            cells = (f"{row['number']}. {row['label']}", f"{row['wer']:.2f}", f"{row['latency_ms_p50']:.0f}",
                     f"{row['peak_mb']:.0f}", f"{row['engine_mb']:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--plot", type=Path, help="copy the Pareto plot (SVG) to this file")
    parser.add_argument("overrides", nargs="*", default=[], help="more of the space, such as precision=int8,float16")
    options = parser.parse_args()
    search = ("-m", *SPACE, f"hydra.sweeper.n_trials={options.trials}", *options.overrides)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder, "model=tiny.en", "stop_after=fetch")
        first, again = run(folder, *search), run(folder, *search)
        (directory,) = (folder / "outputs" / "sweeps").iterdir()
        rows = json.loads((directory / "report.json").read_text(encoding="utf-8"))["rows"]
        steps = Counter(path.parts[-3] for path in (folder / "store").glob("*/*/step.json"))
        if options.plot:
            shutil.copyfile(directory / "pareto.svg", options.plot)
    made = ", ".join(f"{steps[step]} {step}" for step in ("convert", "build", "reference", "validate"))
    missed = sum(row["status"] == "missed" for row in rows)
    print("\n".join(table(rows)))
    print(f"\n{options.trials} trials, {len(rows)} compositions, {missed} of which missed a gate; steps run: {made}; "
          f"{first:.0f} s, and {again:.0f} s when it is run again. {machine()}.")


if __name__ == "__main__":
    main()
