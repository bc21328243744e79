"""What each precision costs: word error rate, speed, size, memory and build time, as a Markdown table.

    python benchmarks/precisions.py --models tiny.en base --profiles interactive duplex_lowmem

Every engine is built from scratch in a temporary store (the weights are fetched once before the clock starts) and
validated on the bundled clips (validation=full), each paired with the float32 engine at 3000 frames. The numbers
are those of validation.json and manifest.json; the machine is named below the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PRECISIONS = ("float32", "float16", "int8", "int4")
HEADER = ("model", "profile", "precision", "WER %", "WER %, float32 at 3000 frames", "token agreement %",
          "the same at the window's edge", "runaways", "RTF", "ms per clip", "engine MB", "peak MB",
          "convert + build s")


def build(folder: Path, *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build and validate one composition; its validation.json and manifest.json."""
    command = [sys.executable, "-m", "whisper_factory", f"store.path={folder / 'store'}",
               f"outputs={folder / 'outputs'}", "quiet=true", "kv_cache=contiguous", *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: a missed gate, which is a result
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}")
    directory = Path(done.stdout.strip())
    return (json.loads((directory / "validation.json").read_text(encoding="utf-8")),
            json.loads((directory / "manifest.json").read_text(encoding="utf-8")))


def row(model: str, profile: str, precision: str, validation: dict[str, Any], manifest: dict[str, Any]) -> list[str]:
    """One line of the table."""
    summary = validation["summary"]
    size = sum(about["bytes"] for name, about in manifest["outputs"].items() if name.startswith("engine/"))
    seconds = manifest["steps"]["convert"]["seconds"] + manifest["steps"]["build"]["seconds"]
    verdict = "" if validation["passed"] else " (gate missed)"
    return [model, profile, precision + verdict, f"{summary['wer']:.2f}", f"{summary['reference_wer']:.2f}",
            f"{100 * summary['token_agreement']:.1f}", f"{100 * summary['edge_token_agreement']:.1f}",
            str(summary["runaways"]), f"{summary['real_time_factor']:.3f}",
            f"{summary['latency_ms_mean']:.0f}", f"{size / 1e6:.1f}", f"{summary['peak_rss_mb']:.0f}", f"{seconds:.1f}"]


def machine(versions: dict[str, str], threads: int) -> str:
    """The machine and the versions behind the numbers."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    tools = ", ".join(f"{tool} {number}" for tool, number in sorted(versions.items()))
    return f"{name}, {os.cpu_count()} cores, {threads} threads; Python {platform.python_version()}, {tools}"


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--profiles", nargs="+", default=["interactive", "duplex_lowmem"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--repeats", type=int, default=1, help="of each clip's latency; the median counts")
    options = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    summary: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            for profile in options.profiles:
                for precision in options.precisions:
                    validation, manifest = build(Path(folder), f"profile={profile}", f"model={model}",
                                                 f"precision={precision}", "validation=full",
                                                 f"validation.repeats={options.repeats}")
                    summary = validation["summary"]
                    print(f"| {' | '.join(row(model, profile, precision, validation, manifest))} |", flush=True)
    print(f"\n{machine(summary['versions'], summary['threads'])}")


if __name__ == "__main__":
    main()
