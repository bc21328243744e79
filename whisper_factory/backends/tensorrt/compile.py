"""`python -m whisper_factory.backends.tensorrt.compile JOB.json`: a graph -> an engine, in a process of its own.

So that TensorRT's messages are in a log and nowhere else, that its memory goes back, and that a crash of it is an
error of ours. JOB.json, paths beside it or absolute:

    {"onnx", "engine", "report", "flavour", "compute_capability", "timing_cache": path or null,
     "shapes": {input: [least, most likely, largest]}}

The report says what the builder told, or what it failed at: {"layers", "weights_bytes", "activation_bytes", "seconds",
"version"}, or {"error", "node", "operator"}.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from whisper_factory.backends.tensorrt.adapter import Library
from whisper_factory.backends.tensorrt.flavours import FLAVOURS

LOGGED = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")  # the rest is thousands of lines
FAILED = 5  # exit code: the report says what failed


class Failure(Exception):
    """What TensorRT said, and of which node."""

    def __init__(self, message: str, node: str = "", operator: str = "") -> None:
        super().__init__(message)
        self.report = {"error": " ".join(message.split()), "node": node, "operator": operator}


class Messages:
    """What TensorRT said: printed, and kept for the report."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.sizes: dict[str, int] = {}

    def __call__(self, severity: str, text: str) -> None:
        if severity in LOGGED:
            print(f"[{severity}] {text}", flush=True)
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(text)
        if found := re.search(r"Total (Weights|Activation) Memory: (\d+) bytes", text):
            self.sizes[found[1].lower()] = int(found[2])


def run(job: dict[str, Any], here: Path) -> dict[str, Any]:
    """Build, write the engine, and return the report.

    Raises:
        Failure: TensorRT could not.
    """
    library, messages = Library(FLAVOURS[job["flavour"]]), Messages()
    logger = library.logger(messages)
    builder = library.trt.Builder(logger)
    network = library.network(builder)
    _parse(library, network, logger, here / job["onnx"], messages)
    config = _config(library, builder, job)
    cache_path = here / job["timing_cache"] if job["timing_cache"] and library.times_kernels else None
    if cache_path:
        library.use_timing_cache(config, cache_path)
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    if plan is None:
        raise _build_failure(network, messages)
    with (here / job["engine"]).open("wb") as file:
        file.write(memoryview(plan))
    if cache_path:
        _keep(cache_path, library.times(config))
    return {"layers": network.num_layers, "weights_bytes": messages.sizes.get("weights"),
            "activation_bytes": messages.sizes.get("activation"), "seconds": round(seconds, 2),
            "version": library.trt.__version__}


def _parse(library: Library, network: Any, logger: Any, path: Path, messages: Messages) -> None:
    parser = library.trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(path)):
        return
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        if node := error.node_name():
            raise Failure(error.desc(), node, error.node_operator())
    raise Failure("; ".join(messages.errors) or f"{path.name} cannot be parsed")


def _config(library: Library, builder: Any, job: dict[str, Any]) -> Any:
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    try:
        library.declare_target(config, job["compute_capability"])
    except ValueError as error:
        raise Failure(str(error)) from error
    library.compute_as_declared(config)
    for name, shapes in job["shapes"].items():
        profile.set_shape(name, *map(tuple, shapes))
    if config.add_optimization_profile(profile) < 0:
        raise Failure("the shapes were refused")
    return config


def _build_failure(network: Any, messages: Messages) -> Failure:
    """The first error, and the node that it names, of which the longest name counts."""
    text = next((error for error in messages.errors if error.strip()), "the builder returned nothing and said nothing")
    names = [network.get_layer(index).name for index in range(network.num_layers)]
    named = [name for name in names if name and re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.]*\w)", text)]
    return Failure(text, max(named, key=len, default=""))


def _keep(path: Path, data: bytes) -> None:
    """Replace a file that other builds may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    os.replace(fresh, path)


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    path = Path(arguments[0])
    job = json.loads(path.read_text(encoding="utf-8"))
    try:
        report = run(job, path.parent)
    except Failure as error:
        report = error.report
    (path.parent / job["report"]).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return FAILED if "error" in report else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
