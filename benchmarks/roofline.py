"""How near the encoder is to what this processor can do: the rates of bare products, and where a window's time goes.

    python benchmarks/roofline.py ENGINE_DIR             # of backend onnxruntime, int8, 3000 frames

Rates are those of ONNX Runtime's MatMul and MatMulInteger, the best of many, of large square matrices: what is measured
of a kernel is how near it comes to that. Time is by the runtime's own profile, the median of several windows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from precisions import machine

from whisper_factory import backends
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper.options import engine_directory

SIDE, TIMES, WINDOWS = 1536, 25, 9
# What nodes do, by a part of their operator's name or their own.
KINDS = {"MultiHeadAttention": "attention, float32", "MatMulInteger": "linear layers, bytes", "Conv": "convolutions"}
REST = "rounding, scales, sums, norms, GELU"


def session(model: bytes | str, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """As the engine opens its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_mem_pattern = threads, False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def best(run: Callable[[], Any]) -> float:
    """Seconds of the quickest run."""
    found = []
    for _ in range(TIMES):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def rate(kind: str, threads: int) -> float:
    """Operations a second, in 10^9, a multiplication and its addition being two."""
    rng = np.random.default_rng(0)
    shape, out = (SIDE, SIDE), TensorProto.FLOAT if kind == "MatMul" else TensorProto.INT32
    rows, matrix = ((rng.random(shape, np.float32), rng.random(shape, np.float32)) if kind == "MatMul" else
                    (rng.integers(0, 255, shape, np.uint8), rng.integers(-127, 127, shape, np.int8)))
    given = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(rows.dtype), rows.shape)
    made = helper.make_tensor_value_info("y", out, rows.shape)
    graph = helper.make_graph([helper.make_node(kind, ["x", "m"], ["y"])], kind, [given], [made],
                              [numpy_helper.from_array(matrix, "m")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    runs = session(model.SerializeToString(), threads)
    return 2e-9 * SIDE**3 / best(lambda: runs.run(None, {"x": rows}))


def where(engine: Path, spec: EngineSpec, threads: int) -> dict[str, float]:
    """Milliseconds of a window of 30 s, by kind."""
    with tempfile.TemporaryDirectory() as folder:
        runs = session(str(engine / "encoder.onnx"), threads, Path(folder) / "profile")
        mel = np.random.default_rng(0).standard_normal((1, spec.dimensions.n_mels, 3000)).astype(np.float32)
        for _ in range(WINDOWS + 1):
            runs.run(None, {"mel": mel})
        events = json.loads(Path(runs.end_profiling()).read_text(encoding="utf-8"))
    windows: list[defaultdict[str, float]] = []
    for event in sorted(events, key=lambda entry: entry["ts"]):
        if event["name"] == "model_run":
            windows.append(defaultdict(float))
        elif windows and event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            windows[-1][next((kind for part, kind in KINDS.items() if part in operator), REST)] += event["dur"] / 1000
    return {kind: statistics.median(window[kind] for window in windows[1:]) for kind in (*KINDS.values(), REST)}


def work(spec: EngineSpec) -> dict[str, float]:
    """Operations of a window of 30 s, in 10^9."""
    sizes = spec.dimensions
    length, state = sizes.n_audio_ctx, sizes.n_audio_state
    attention, linear, convolutions = KINDS.values()
    return {attention: 4e-9 * sizes.n_audio_layer * length**2 * state,
            linear: 2e-9 * length * state**2 * (12 * sizes.n_audio_layer + 2 * sizes.n_text_layer),
            convolutions: 6e-9 * length * state * (2 * sizes.n_mels + state), REST: 0.0}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine_dir", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    engine = engine_directory(options.engine_dir)
    spec = EngineSpec.load(engine)
    rates = {kind: rate(kind, options.threads) for kind in ("MatMul", "MatMulInteger")}
    print(", ".join(f"{kind} {found:.0f}" for kind, found in rates.items()), "10^9 a second")
    done, spent = work(spec), where(engine, spec, options.threads)
    least = {kind: 1000 * count / rates["MatMulInteger" if "bytes" in kind else "MatMul"]
             for kind, count in done.items()}
    print(f"\n| of a window ({spec.model}) | work, 10^9 | ms | at these rates, ms |\n|---|--:|--:|--:|")
    for kind, took in spent.items():
        print(f"| {kind} | {done[kind]:.1f} | {took:.0f} | {least[kind]:.0f} |" if done[kind]
              else f"| {kind} | | {took:.0f} | |")
    print(f"| together | {sum(done.values()):.1f} | {sum(spent.values()):.0f} | {sum(least.values()):.0f} |")
    print(f"\n{machine(backends.get('onnxruntime').tools(), options.threads)}.")


if __name__ == "__main__":
    main()
