"""One system in a process of its own, for peers.py: `python peer_worker.py SYSTEM JOB.json OUT.json`.

JOB: model (a path), threads, clips (files of float32 samples at 16 kHz), beams, batch, language, and of a long clip
its windows ([start, end] in seconds). OUT: load_s, resident (VmHWM, bytes), up_s (from JOB's `started`, a monotonic
time, to the first transcript), and of each clip seconds, first_token_s (None: the system cannot tell) and text.

The first clip and the longest are heard once unheard of, to warm up; then each clip once. All decode without
timestamps, voice detection, earlier text as a prompt, or a second try at a higher temperature.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Samples = Any  # float32 [n]
Hear = Callable[[Samples], tuple[str, float | None]]  # the text, and seconds to the first token if that can be told


def whisper_factory(job: dict[str, Any]) -> Hear:
    """An engine directory. The first token is there when the search has chosen it."""
    from whisper_factory.stopwatch import Stopwatch
    from whisper_factory.whisper.options import Options
    from whisper_factory.whisper.transcribe import Transcriber

    transcriber = Transcriber.load(Path(job["model"]), job["threads"])
    stopwatch = Stopwatch(transcriber.engine)
    options = Options(num_beams=job["beams"], language=job["language"], batch_size=job["batch"])

    def hear(samples: Samples) -> tuple[str, float | None]:
        (transcript,), lap = stopwatch.time(lambda: transcriber.transcribe([samples], options))
        return transcript.text, lap.first_token

    return hear


def openai_whisper(job: dict[str, Any]) -> Hear:
    """float32. The first token is there when the decoder has run for the first time."""
    import torch
    import whisper

    torch.set_num_threads(job["threads"])
    model = whisper.load_model(job["model"], device="cpu")
    steps: list[float] = []
    model.decoder.register_forward_hook(lambda *about: steps.append(time.perf_counter()))
    beams = {} if job["beams"] == 1 else {"beam_size": job["beams"]}

    def hear(samples: Samples) -> tuple[str, float | None]:
        steps.clear()
        start = time.perf_counter()
        found = model.transcribe(samples, temperature=0.0, without_timestamps=True, fp16=False, **beams,
                                 condition_on_previous_text=False, language=job["language"])
        return found["text"].strip(), steps[0] - start

    return hear


def faster_whisper(job: dict[str, Any]) -> Hear:
    """int8. It decodes in one call; the first token's time is that of another run, limited to one token."""
    from faster_whisper import WhisperModel

    model = WhisperModel(job["model"], device="cpu", compute_type="int8", cpu_threads=job["threads"],
                         local_files_only=True)

    def hear(samples: Samples, **more: Any) -> tuple[str, float | None]:
        segments, _ = model.transcribe(samples, beam_size=job["beams"], temperature=0.0, without_timestamps=True,
                                       vad_filter=False, condition_on_previous_text=False, language=job["language"],
                                       **more)
        return " ".join(segment.text.strip() for segment in segments), None

    return hear if job["batch"] == 1 else _batched(model, job)


def _batched(model: Any, job: dict[str, Any]) -> Hear:
    """faster-whisper's batched pipeline, on given windows instead of those that its voice detection finds."""
    from faster_whisper import BatchedInferencePipeline

    pipeline = BatchedInferencePipeline(model)
    windows = [{"start": start, "end": end} for start, end in job["windows"]]

    def hear(samples: Samples) -> tuple[str, float | None]:
        within = [window for window in windows if window["end"] * 16_000 <= len(samples) + 1]
        segments, _ = pipeline.transcribe(samples, beam_size=job["beams"], batch_size=job["batch"], temperature=0.0,
                                          without_timestamps=True, vad_filter=False, clip_timestamps=within,
                                          condition_on_previous_text=False, language=job["language"])
        return " ".join(segment.text.strip() for segment in segments), None

    return hear


SYSTEMS: dict[str, Callable[[dict[str, Any]], Hear]] = {
    "whisper_factory": whisper_factory, "openai_whisper": openai_whisper, "faster_whisper": faster_whisper}
LIBRARIES = {"whisper_factory": ("onnxruntime", "whisper_factory.whisper.transcribe"), "openai_whisper": ("whisper",),
             "faster_whisper": ("faster_whisper",)}


def resident() -> int:
    """The most that was resident of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Load, warm up, hear, and write what was found."""
    system, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    clips = [np.fromfile(path, np.float32) for path in job["clips"]]
    for library in LIBRARIES[system]:
        __import__(library)
    start = time.perf_counter()
    hear = SYSTEMS[system](job)
    load_s = time.perf_counter() - start
    short = job["warm_up_seconds"] * 16_000
    hear(clips[0][:short])
    up_s = time.monotonic() - job["started"]
    if len(clips) > 1:
        hear(max(clips, key=len)[:short])
    found = []
    for clip in clips:
        start = time.perf_counter()
        text, first = hear(clip)
        found.append({"seconds": time.perf_counter() - start, "first_token_s": first, "text": text})
    highest = resident()
    if system == "faster_whisper" and job["batch"] == 1:
        for clip, entry in zip(clips, found, strict=True):
            start = time.perf_counter()
            hear(clip, max_new_tokens=1)  # type: ignore[call-arg]
            entry["first_token_s"] = time.perf_counter() - start
    report = {"load_s": load_s, "up_s": up_s, "resident": highest, "clips": found}
    Path(sys.argv[3]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
