"""For gpu.py: one measurement of our engines in a process of its own, `python gpu_worker.py KIND JOB.json OUT.json`.

JOB: payload, work, model, precision, profile, changes (fields of the profile), provider, kv_cache (contiguous, if it is
not said), and what the kind reads.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import gpu_engines
import numpy as np

from whisper_factory.backends.onnxruntime_cuda.limits import STEP_FRAMES
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.transcribe import Transcriber

Job = dict[str, Any]
LONGEST = 7.0  # seconds, of clips whose latency is measured


def directory(job: Job) -> Path:
    """The engine of a job."""
    shape = gpu_engines.profile(job["profile"], **job.get("changes", {}))
    spec = gpu_engines.declared(job["model"], job["precision"], shape, job["provider"],
                                job.get("kv_cache", "contiguous"))
    return gpu_engines.built(Path(job["payload"]), Path(job["work"]), spec)


def options(job: Job, **more: Any) -> Options:
    """English where the model knows more."""
    return Options(language=None if job["model"].endswith(".en") else "en", **more)


def accuracy(job: Job) -> dict[str, Any]:
    """The text and tokens of every clip, in batches as large as the engine takes."""
    transcriber = Transcriber.load(directory(job), job.get("threads"))
    found = transcriber.transcribe([clip["audio"] for clip in gpu_engines.clips(Path(job["payload"]))], options(job))
    return {"texts": [one.text for one in found], "tokens": [one.tokens for one in found],
            "runaways": sum(heard.decoded.runaway for one in found for heard in one.windows),
            "circles": sum(heard.decoded.circles for one in found for heard in one.windows)}


def latency(job: Job) -> dict[str, Any]:
    """Milliseconds of each clip alone: the median of three rounds after two that warm up."""
    heard = [clip["audio"] for clip in gpu_engines.clips(Path(job["payload"])) if len(clip["audio"]) <= LONGEST * 16000]
    heard = heard[: job.get("clips", len(heard))]
    asked = options(job)
    start = time.perf_counter()
    transcriber = Transcriber.load(directory(job))
    load_s = time.perf_counter() - start
    rounds, encoder, texts, tokens = [], [], [], 0
    for number in range(5):
        times, encoders = [], []
        for audio in heard:
            start = time.perf_counter()
            (one,) = transcriber.transcribe([audio], asked)
            times.append(1e3 * (time.perf_counter() - start))
            encoders.append(1e3 * one.timings.encoder)
            if number == 0:
                texts.append(one.text)
                tokens += len(one.tokens) + 1
        rounds.append(times)
        encoder.append(encoders)
    best = np.median(rounds[2:], axis=0)
    return {"load_s": load_s, "clips": len(heard), "tokens_a_clip": tokens / len(heard), "median_ms": median(best),
            "mean_ms": float(best.mean()), "p95_ms": float(np.percentile(best, 95)), "max_ms": float(best.max()),
            "first_round_median_ms": median(rounds[0]), "first_round_max_ms": max(rounds[0]),
            "encoder_ms": float(np.median(encoder[2:])), "texts": texts}


def throughput(job: Job) -> dict[str, Any]:
    """Seconds for so many minutes of audio, all given at once: the median of three, after one that warms up."""
    audio = gpu_engines.minutes(Path(job["payload"]), job["minutes"], job["each"])
    transcriber, asked, times = Transcriber.load(directory(job)), options(job), []
    for _ in range(4):
        start = time.perf_counter()
        found = transcriber.transcribe(audio, asked)
        times.append(time.perf_counter() - start)
    seconds = sum(map(len, audio)) / 16000
    took = median(times[1:])
    return {"audio_s": seconds, "recordings": len(audio), "windows": sum(len(one.windows) for one in found),
            "took_s": took, "first_s": times[0], "real_time": seconds / took, "recordings_a_second": len(audio) / took,
            "encoder_s": sum(one.timings.encoder for one in found), "texts": [one.text for one in found]}


def watched(engine: Any) -> list[int]:
    """What the card has in use whenever the caches have taken what they need, and what comes and goes is there."""
    found, hold = [0], engine.caches.hold

    def watch(*wanted: int) -> None:
        hold(*wanted)
        found.append(gpu_engines.used())

    engine.caches.hold = watch
    return found


def worst(transcriber: Transcriber, job: Job) -> None:
    """Clips of every length, alone and as many as there may be at once, and beams; the longest once more, when all that
    is kept has been taken."""
    spec = transcriber.spec
    rng, beams = np.random.default_rng(0), spec.profile.max_beam_width
    audio = [rng.standard_normal(spec.profile.max_input_len * 160).astype(np.float32) * 0.05
             for _ in range(spec.profile.max_batch_size)]
    for count in sorted({1, len(audio)}):
        step = STEP_FRAMES // 2  # windows of every length: they may grow twice as fast as clips
        for frames in range(step, spec.profile.max_input_len + step, step):
            if spec.profile.padding_strategy != "max" or frames > spec.profile.max_input_len - step:
                transcriber.transcribe([one[: frames * 160] for one in audio[:count]], options(job))
    for _ in range(2):
        transcriber.transcribe(audio, options(job, num_beams=beams))


def memory(job: Job) -> dict[str, Any]:
    """What the driver counts for this process when the engine is loaded, and at the highest that a full load brings."""
    before = gpu_engines.used()
    from whisper_factory.backends.cuda.cudart import Cuda

    Cuda()
    context = gpu_engines.used() - before
    built = directory(job)
    transcriber = Transcriber.load(built)
    loaded = gpu_engines.used() - before
    spec = transcriber.spec
    highest = watched(transcriber.engine)
    worst(transcriber, job)
    from whisper_factory import backends

    parts, engine = backends.get(spec.backend).footprint(spec), transcriber.engine
    idle = gpu_engines.used()
    return {"context": context, "loaded": loaded, "peak": max(idle, *highest) - before, "idle": idle - before,
            "graphs": sum(bound.captured for bound in (*engine._bound.values(), *engine.hearing.bound.values())),
            "plan": {part.name: [part.load, part.peak] for part in parts},
            "plan_load": sum(part.load for part in parts), "plan_peak": sum(part.peak for part in parts)}


KINDS = {"accuracy": accuracy, "latency": latency, "throughput": throughput, "memory": memory}


def main() -> None:
    """Run one measurement."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    Path(sys.argv[3]).write_text(json.dumps(KINDS[sys.argv[1]](job)), encoding="utf-8")


if __name__ == "__main__":
    main()
