"""For gpu.py: how far a step is from what the card's memory allows, and where the rest goes.

`python gpu_limits.py KIND JOB.json OUT.json`, KIND bandwidth, steps (with or without CUDA graphs) or kernels.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gpu_worker import directory

from whisper_factory.backends.cuda.cudart import DEVICE_TO_DEVICE, Cuda
from whisper_factory.backends.cuda.paged import on_gpu
from whisper_factory.backends.onnxruntime_cuda import machine
from whisper_factory.backends.onnxruntime_cuda.footprint import token_bytes, weights
from whisper_factory.backends.onnxruntime_cuda.runtime import OnnxExecutor
from whisper_factory.backends.onnxruntime_cuda.session import CudaEngine
from whisper_factory.engine_spec import EngineSpec

Job = dict[str, Any]
COPIED, STEPS = 1 << 30, 40


def bandwidth(job: Job) -> dict[str, Any]:
    """Bytes read and written a second, by copies of 1 GiB within the card's memory."""
    cuda = Cuda()
    source, target = cuda.allocate(COPIED), cuda.allocate(COPIED)
    times = []
    for _ in range(20):
        cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            cuda.call("cudaMemcpyAsync", ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(COPIED),
                      DEVICE_TO_DEVICE, ctypes.c_void_p(cuda.stream))
        cuda.synchronize()
        times.append((time.perf_counter() - start) / 10)
    found = machine.gpu()
    return {"bytes_a_second": 2 * COPIED / median(times), "card": found.name if found else None}


def opened(job: Job) -> tuple[CudaEngine, Cuda]:
    """The job's engine, its steps as CUDA graphs or not."""
    place = directory(job)
    machine.preload()
    cuda = Cuda()
    spec = EngineSpec.load(place)
    engine = CudaEngine(spec, cuda, OnnxExecutor(place, cuda.stream, graphs=job["graphs"]), on_gpu(spec, cuda))
    engine.warm_up()
    return engine, cuda


def begun(engine: CudaEngine, job: Job) -> Any:
    """An utterance after its prompt: as many windows as the engine takes, of the job's seconds of silence."""
    spec = engine.spec
    audio = [np.zeros(int(job["seconds"] * 16000), np.float32)] * spec.profile.max_batch_size
    utterance = engine.listen(audio, spec.encoder_frames(int(job["seconds"] * 100), spec.profile.padding_strategy))
    utterance.feed(np.array([[50257, 50362]] * len(audio)))
    return utterance


def steps(job: Job) -> dict[str, Any]:
    """Microseconds of a step: one after the other without the host, and with it hearing of each token."""
    engine, cuda = opened(job)
    apart, together, encodes = [], [], []
    for _ in range(12):
        cuda.synchronize()
        start = time.perf_counter()
        utterance = begun(engine, job)
        cuda.synchronize()
        encodes.append(1e6 * (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in range(STEPS // 2):
            utterance.step()
        cuda.synchronize()
        together.append(1e6 * (time.perf_counter() - start) / (STEPS // 2))
        start = time.perf_counter()
        for _ in range(STEPS // 2):
            utterance.step()
            engine.slots[0].fetch(engine.chosen.address)
            engine.slots[0].wait()
        apart.append(1e6 * (time.perf_counter() - start) / (STEPS // 2))
    return {"step_us": median(together), "step_heard_us": median(apart), "encode_and_prompt_us": median(encodes),
            "bytes": read(engine.spec, job["seconds"])}


def read(spec: EngineSpec, seconds: float) -> int:
    """Bytes that a step of all rows has to read: weights, the head, the keys and values at half an answer."""
    stored, each, shape = weights(spec), token_bytes(spec), spec.profile
    frames = spec.encoder_frames(int(seconds * 100), shape.padding_strategy)
    length = frames // 2 + (shape.end_anchor if frames < 3000 else 0)
    return stored["decoder"] + stored["embedding"] + shape.max_batch_size * each * (length + STEPS // 2)


def kernels(job: Job) -> dict[str, Any]:
    """What the card runs in a step, by CUPTI, which counts every kernel of the process."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.zeros(1).cuda()
    engine, cuda = opened(job)
    for _ in range(3):
        utterance = begun(engine, job)
        for _ in range(STEPS):
            utterance.step()
    utterance = begun(engine, job)
    cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watched:
        start = time.perf_counter()
        for _ in range(STEPS):
            utterance.step()
        cuda.synchronize()
        took = time.perf_counter() - start
        torch.cuda.synchronize()
    counts, spent = Counter(), Counter()
    for event in watched.events():
        if str(event.device_type).endswith("CUDA"):
            name = event.name[:90]
            counts[name] += 1
            spent[name] += event.device_time
    return {"step_us": 1e6 * took / STEPS, "kernels_a_step": sum(counts.values()) / STEPS,
            "busy_us": sum(spent.values()) / STEPS,
            "kernels": [[name, counts[name] / STEPS, spent[name] / STEPS] for name, _ in spent.most_common(40)]}


def main() -> None:
    """Run one measurement."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    kinds = {"bandwidth": bandwidth, "steps": steps, "kernels": kernels}
    Path(sys.argv[3]).write_text(json.dumps(kinds[sys.argv[1]](job)), encoding="utf-8")


if __name__ == "__main__":

    main()
