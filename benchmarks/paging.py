"""What paging costs a token and what it saves, as a Markdown table.

    python benchmarks/paging.py --engine_dir outputs/.../ [more ...]

Each engine is run in both KV modes, which share its graphs and weights (the mode is a line of engine.json), in turns
of decoding in one process: windows of silence as long as the engine takes, all rows that it takes, tokens up to its
limit, none of which means anything. Time: a step of all rows, the median over the positions of the median over the
rounds; and what encoding and closing take, once a turn, the least of the rounds: paged memory is taken from the
system, and given back, each time. Memory: what the KV caches hold at the end of a decoding, by the system's count.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from whisper_factory import backends, resident
from whisper_factory.backends.engines import Engine
from whisper_factory.engine_spec import EngineSpec, KVCache
from whisper_factory.whisper.options import engine_directory

HEADER = ("engine", "rows", "tokens", "a step: contiguous ms", "paged ms", "paged / contiguous",
          "encode and close: contiguous ms", "paged ms", "KV: contiguous MB",
          "paged, at the end MB", "of which at 20 tokens MB", "pages")


def respecified(engine: Path, out: Path, cache: KVCache) -> Path:
    """The same engine with another KV cache."""
    out.mkdir(parents=True)
    for file in engine.iterdir():
        (out / file.name).symlink_to(file.resolve())
    (out / "engine.json").unlink()
    dataclasses.replace(EngineSpec.load(engine), kv_cache=cache).save(out)
    return out


def decode(engine: Engine, steps: int) -> tuple[list[float], float, int, int, int]:
    """Seconds of each step, and of encoding and closing; resident bytes after 20 tokens and at the end, and the pages
    then in use."""
    shape = engine.spec.profile
    mel = np.full((shape.max_batch_size, engine.spec.dimensions.n_mels, engine.spec.window_frames), -1.5, np.float32)
    start = time.perf_counter()
    utterance = engine.encode(mel)
    around = time.perf_counter() - start
    utterance.decode(np.full((shape.max_batch_size, 2), 50257))
    utterance.select(np.repeat(np.arange(shape.max_batch_size), shape.max_beam_width))
    rng, took, early = np.random.default_rng(0), [], 0
    for step in range(steps):
        tokens = rng.integers(0, 50000, (engine.spec.max_rows, 1))
        start = time.perf_counter()
        utterance.decode(tokens)
        took.append(time.perf_counter() - start)
        if step == 18:
            early = resident.now()
    held, pages = resident.now(), engine.memory.pages_in_use  # type: ignore[attr-defined]
    start = time.perf_counter()
    utterance.close()
    return took, around + time.perf_counter() - start, early, held, pages


def compare(engine: Path, rounds: int) -> list[str]:
    """One line of the table."""
    spec = EngineSpec.load(engine)
    with tempfile.TemporaryDirectory() as folder:
        modes = {}
        for mode in ("contiguous", "paged"):
            cache = KVCache(mode, spec.kv_cache.tokens_per_page)  # type: ignore[arg-type]
            modes[mode] = backends.load(respecified(engine, Path(folder) / mode, cache))
    steps, times, empty = spec.max_tokens - 2, {"contiguous": [], "paged": []}, 0  # type: ignore[var-annotated]
    turns: dict[str, list[float]] = {"contiguous": [], "paged": []}
    for _ in range(rounds):
        for mode, loaded in modes.items():
            took, around, early, held, pages = decode(loaded, steps)
            times[mode].append(took)
            turns[mode].append(around)
            if mode == "paged":
                empty = resident.now()  # what is taken now, and was not before, was KV
    slow, fast = (median(map(median, zip(*times[mode], strict=True))) for mode in ("paged", "contiguous"))
    whole = modes["contiguous"].memory  # type: ignore[attr-defined]
    return [f"{spec.model} {spec.precision.name} {spec.profile.name}", str(spec.max_rows), str(steps + 2),
            f"{1e3 * fast:.3f}", f"{1e3 * slow:.3f}", f"{slow / fast:.3f}",
            f"{1e3 * min(turns['contiguous']):.1f}", f"{1e3 * min(turns['paged']):.1f}",
            f"{(whole.self_kv.size + whole.cross_kv.size) / 1e6:.1f}", f"{(held - empty) / 1e6:.1f}",
            f"{(early - empty) / 1e6:.1f}", str(pages)]


def main() -> int:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine_dir", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for engine in options.engine_dir:
        print(f"| {' | '.join(compare(engine_directory(engine), options.rounds))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
