"""What gpu.py measures: its points, cheapest first, and the measurements of each, what matters most first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

PRECISIONS, MODELS, BATCHES = ("float16", "int8", "int4"), ("tiny.en", "base"), (1, 8, 32)
PEERS = ("transformers-compiled", "transformers-static", "openai-whisper", "transformers")  # the fastest first
SHORT = {"profile": "duplex_lowmem"}
LONG = {"profile": "batch", "changes": {"max_beam_width": 1}}


class Task(NamedTuple):
    """A measurement."""

    script: str
    kind: str
    name: str
    job: dict[str, Any]
    seconds: float  # that it may take


def integers() -> Iterator[Task]:
    """Weights packed for TensorRT-LLM, multiplied by."""
    job = {"model": "tiny.en", "precision": "int8", "provider": "cuda", **SHORT}
    yield Task("gpu_integers", "integers", "integers", job, 120)


def memory() -> Iterator[Task]:
    """What the card's driver counts, beside the plan, with both kinds of KV cache."""
    for model in MODELS:
        for precision in PRECISIONS if model == "tiny.en" else ("int8",):
            for profile in ("duplex_lowmem", "interactive", "batch"):
                for mode in ("contiguous", "paged"):
                    job = {"model": model, "precision": precision, "provider": "cuda", "profile": profile,
                           "kv_cache": mode}
                    yield Task("gpu_worker", "memory", f"memory/{model}/{precision}/{profile}/{mode}", job, 120)


def command() -> Iterator[Task]:
    """The command line itself."""
    for model, precision in (("tiny.en", "int8"), ("base", "float16")):
        chosen = [f"model={model}", f"precision={precision}", "profile=duplex_lowmem", "kv_cache=contiguous",
                  "backend.provider=cuda"]
        yield Task("gpu_command", "command", f"command/{model}/{precision}", {"model": model, "chosen": chosen}, 240)


def accuracy(provider: str = "cuda") -> Iterator[Task]:
    """What is heard: on the GPU, and on the CPU, the slowest first."""
    found = []
    for model in MODELS:
        for precision in PRECISIONS:
            for window, shape in (("short", SHORT), ("30s", LONG)):
                job = {"model": model, "precision": precision, "provider": provider, "threads": 2, **shape}
                name = f"accuracy/{model}/{precision}/{window}/{provider}"
                found.append(Task("gpu_worker", "accuracy", name, job, 400))
    yield from sorted(found, key=lambda task: ("30s" in task.name) + (task.job["model"] == "base"), reverse=True)


def limits() -> Iterator[Task]:
    """Steps of the decoder, beside what the card's memory could give."""
    yield Task("gpu_limits", "bandwidth", "limits/bandwidth", {}, 60)
    for model in MODELS:
        for precision in PRECISIONS:
            for batch in (1, 32):
                changes = {"max_batch_size": batch, "max_beam_width": 1}
                job = {"model": model, "precision": precision, "provider": "cuda", "profile": "duplex_lowmem",
                       "changes": changes, "seconds": 6.0}
                for graphs in (True, False) if model == "tiny.en" else (True,):
                    name = f"limits/steps/{model}/{precision}/{batch}/{'graphs' if graphs else 'plain'}"
                    yield Task("gpu_limits", "steps", name, {**job, "graphs": graphs}, 90)
                if model == "tiny.en":
                    name = f"limits/kernels/{precision}/{batch}"
                    yield Task("gpu_limits", "kernels", name, {**job, "graphs": True}, 90)


def latency() -> Iterator[Task]:
    """Clips alone: ours and the peers' over the same, then ours over all."""
    engines = [(model, precision) for model in MODELS for precision in PRECISIONS]
    for model, precision in engines:
        job = {"model": model, "precision": precision, "provider": "cuda", **SHORT, "clips": 60}
        yield Task("gpu_worker", "latency", f"latency/{model}/{precision}-as-peers", job, 120)
    for system in PEERS:
        for model in MODELS:
            job = {"model": model, "system": system, "clips": 60, "rounds": 3}
            yield Task("gpu_peers", "latency", f"latency/{model}/{system}", job, 200)
    for model, precision in engines:
        job = {"model": model, "precision": precision, "provider": "cuda", **SHORT}
        yield Task("gpu_worker", "latency", f"latency/{model}/{precision}", job, 120)


def throughput() -> Iterator[Task]:
    """30 minutes as recordings of 30 s in windows of 30 s, and as clips of up to 7.5 s, in short windows too. The batch
    that the goal is about first, then the peers that were never the fastest, last ours in int8."""
    for batch in reversed(BATCHES):
        yield from _ours(batch, "float16")
        yield from _theirs(batch, "transformers-static")
    for system in ("openai-whisper", "transformers"):
        for batch in reversed(BATCHES):
            yield from _theirs(batch, system)
    for batch in reversed(BATCHES):
        yield from _ours(batch, "int8")


def _ours(batch: int, precision: str) -> Iterator[Task]:
    for window, each, shape in (("30s", 30, {"padding_strategy": "max"}), ("clips", 7.5, {"padding_strategy": "max"}),
                                ("clips-short", 7.5, {"max_input_len": 750, "margin_frames": 100})):
        changes = {"max_batch_size": batch, "max_beam_width": 1, **shape}
        job = {"model": "tiny.en", "precision": precision, "provider": "cuda", "profile": "batch", "changes": changes,
               "minutes": 30, "each": each}
        yield Task("gpu_worker", "throughput", f"throughput/{window}/{batch}/{precision}", job, 150)


def _theirs(batch: int, system: str) -> Iterator[Task]:
    for window, each in (("30s", 30), ("clips", 7.5)):
        job = {"model": "tiny.en", "system": system, "batch": batch, "minutes": 30 if batch > 1 else 10, "each": each}
        yield Task("gpu_peers", "throughput", f"throughput/{window}/{batch}/{system}", job, 150)


# Those up to accuracy are not timed, so that the CPU's engines may hear meanwhile.
UNTIMED = {"integers": integers, "memory": memory, "command": command, "accuracy": accuracy}
TIMED = {"limits": limits, "latency": latency, "throughput": throughput}
POINTS = {**UNTIMED, **TIMED}
