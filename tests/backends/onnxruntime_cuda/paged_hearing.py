"""In a process of its own, as a touch of memory that is not there kills it: `python -m ... DIRECTORY CASE`."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.backends.onnxruntime_cuda.making import PAGED, on_the_cpu
from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine
from whisper_factory.backends.onnxruntime_cuda.utterance import CudaUtterance
from whisper_factory.engine_spec import KVCache

RNG = np.random.default_rng(11)
MEL = RNG.standard_normal((4, 80, 850), dtype=np.float32)
TOKENS = RNG.integers(0, 50000, (12, 40))
BEAMS = ([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [2, 0, 1, 3, 3, 3, 7, 8, 6, 11, 10, 9], [4, 5, 3, 9, 9, 10], [3, 4, 5])


def engine(directory: Path, kv_cache: KVCache = PAGED) -> CudaEngine:
    made = on_the_cpu(directory, kv_cache)
    made.warm_up()
    return made


def held(loaded: CudaEngine) -> int:
    """Granules that are there."""
    caches: Any = loaded.caches
    return len(caches.granules.virtual.there)


def steps(utterance: CudaUtterance) -> list[np.ndarray]:
    """The logits of a prompt, and of steps whose rows become beams and fewer."""
    found = [utterance.decode(TOKENS[: utterance.rows, :2])]
    for number, sources in enumerate(BEAMS):
        utterance.select(np.array(sources))
        found.append(utterance.decode(TOKENS[: utterance.rows, number + 2 : number + 3]))
    return found


def same(directory: Path) -> dict[str, Any]:
    """Logits of both modes, bit for bit; and how many granules there were."""
    loaded, other = engine(directory), on_the_cpu(directory)
    counts, equal = [held(loaded)], True
    for mel in (MEL, MEL[:, :, :760], MEL):
        utterance = loaded.encode(mel)
        counts.append(held(loaded))
        equal &= all(map(np.array_equal, steps(utterance), steps(other.encode(mel))))
        counts.append(held(loaded))
        utterance.close()
        counts.append(held(loaded))
    prompts = TOKENS[:4, :2]
    first, second = (one.encode(MEL).greedy(prompts, [1], [1], 50256, [2, 9, 4, 12]) for one in (loaded, other))
    return {"equal": equal and first == second, "counts": counts}


def streamed(directory: Path) -> dict[str, Any]:
    """Ten windows in four rows, answers of unlike length: what is heard in both modes, and how many granules."""
    audio = [(RNG.uniform(0.01, 0.5) * RNG.standard_normal(40_000)).astype(np.float32) for _ in range(10)]
    prompts, limits = np.stack([[50257, 300 + window] for window in range(10)]), [1 + 7 * n % 15 for n in range(10)]
    loaded, other = engine(directory), on_the_cpu(directory)
    found, counts = [], [held(loaded)]
    for one in (loaded, other):
        utterance = one.stream(audio, 768, 4)
        counts.append(held(loaded))
        found.append(utterance.greedy(prompts, [1], [1], 50256, limits))
        utterance.close()
        counts.append(held(loaded))
    return {"equal": found[0] == found[1], "answers": len({tuple(tokens) for tokens, _ in found[0]}), "counts": counts}


def waiting(directory: Path) -> dict[str, Any]:
    """A pool of five rows: one window's beams at a time, and their logits."""
    loaded, other = engine(directory, KVCache("paged", 8, 15)), on_the_cpu(directory)
    utterance, equal, most = loaded.encode(MEL), True, 0
    rooms = [utterance.room(2, 3), utterance.room(2, 2), utterance.room(2, 1)]
    parts = [utterance]
    while parts[-1].rows > 1:
        parts.append(parts[-1].split(1))
    rooms += [part.room(2, 3) for part in parts]
    for window, part in enumerate(parts):
        alone = other.encode(MEL[window : window + 1])
        for one in (part, alone):
            one.decode(TOKENS[window : window + 1, :2])
            one.select(np.array([0, 0, 0]))
        for token in range(3):
            new = TOKENS[:3, token : token + 1]
            equal &= np.array_equal(part.decode(new), alone.decode(new))
        most = max(most, held(loaded))
        part.close()
        rooms.append(parts[window + 1].room(2, 3) if window < 3 else held(loaded))
    return {"equal": equal, "rooms": rooms, "most": most}


def touch(directory: Path) -> dict[str, Any]:
    """What lies behind the last row that is there."""
    loaded = engine(directory)
    utterance = loaded.encode(MEL[:1])
    utterance.decode(TOKENS[:1, :2])
    return {"read": ctypes.string_at(loaded.caches.past(12)["past_k_0"].address + 11 * 6144, 1)[0]}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[2]](Path(sys.argv[1]))))
