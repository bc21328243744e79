"""Predicted against measured memory of the embedded backend, as a Markdown table.

    python benchmarks/memory.py --models tiny.en base

Every engine runs in a fresh process at its worst: as many windows as it takes, all of the longest audio, all beams,
and answers of the full length (<|endoftext|> is forbidden). Measured is what the operating system says is resident
(VmRSS with the engine loaded, VmHWM at the end), above the same process with its libraries imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from precisions import machine

from tests.compositions import composition
from whisper_factory import backends, factory, memory, schema
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.threads import physical_cores

PRECISIONS, PROFILES, MODES = ("float32", "int8", "int4"), ("interactive", "batch", "duplex_lowmem"), (
    "contiguous", "paged")
TOLERANCE, FLOOR = 0.05, 8 * memory.MB  # whichever is larger


def measured(engine: Path) -> dict[str, int]:
    """worst_case.py in a fresh process."""
    script = Path(__file__).with_name("worst_case.py")
    child = subprocess.run([sys.executable, str(script), str(engine)], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, int] = json.loads(child.stdout)
    return found


def build(folder: Path, *overrides: str) -> tuple[EngineSpec, Path]:
    """An engine of a composition, not validated."""
    made = composition(*overrides, "validation=none", f"outputs={folder / 'outputs'}", f"store.path={folder / 'store'}")
    schema.settle(made)
    outcome = factory.produce(made, "")
    return outcome.plan.spec, outcome.plan.directory / "engine"


def predicted(spec: EngineSpec) -> tuple[int, int]:
    """Loaded and at peak, in bytes, above the libraries."""
    planned = memory.estimate(spec)
    libraries = planned.part(memory.LIBRARIES)
    return planned.load - libraries.load, planned.peak - libraries.peak


def off(planned: int, found: int) -> float:
    """How far a prediction is off, as a share of what is allowed: 1 is the limit."""
    return abs(planned - found) / max(FLOOR, TOLERANCE * found)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    flags.add_argument("--precisions", nargs="+", default=PRECISIONS)
    flags.add_argument("--profiles", nargs="+", default=PROFILES)
    wanted = flags.parse_args()
    print("| model | precision | profile | contiguous: loaded | at peak | paged: loaded | at peak | off by |\n"
          "|---|---|---|---|---|---|---|---|", flush=True)
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for model, precision, profile in product(wanted.models, wanted.precisions, wanted.profiles):
            cells, shares = [model, precision, profile], []
            for mode in MODES:
                spec, engine = build(Path(scratch), f"profile={profile}", f"model={model}", f"precision={precision}",
                                     f"kv_cache={mode}")
                found = measured(engine)
                for moment, planned in zip(("load", "peak"), predicted(spec), strict=True):
                    cells.append(f"{planned / memory.MB:.1f} / {found[moment] / memory.MB:.1f}")
                    shares.append(off(planned, found[moment]))
            worst = max(worst, *shares)
            print(f"| {' | '.join([*cells, f'{max(shares):.2f}'])} |", flush=True)
    where = machine(backends.get("onnxruntime").tools(), physical_cores())
    print(f"\nMB above the libraries, predicted / measured. *Off by*: the largest of the four differences over what is "
          f"allowed, 5 % or 8 MB, whichever is larger; the worst is {worst:.2f}. {where}.")


if __name__ == "__main__":
    main()
