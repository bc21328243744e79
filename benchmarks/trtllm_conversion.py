"""What converting to a TensorRT-LLM checkpoint costs, against reading the weights and writing as many bytes.

    python benchmarks/trtllm_conversion.py

A random float16 model of small.en's dimensions, as OpenAI's .pt. Every measurement is a process of its own, its clock
started once torch and NumPy are imported. The baseline is torch.load, and safetensors' save_file of tensors as large
as the result; the conversion is .pt -> canonical checkpoint -> packed for compute capability 8.7. They take turns.
Prints a Markdown table of medians, with their ratio, and the peak memory of the process (VmHWM, Python and its
libraries included) over the size of the .pt.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMALL_EN = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 768, "n_audio_head": 12, "n_audio_layer": 12,
            "n_vocab": 51864, "n_text_ctx": 448, "n_text_state": 768, "n_text_head": 12, "n_text_layer": 12}
BITS = {"int8": 8, "int4": 4}
PARTS = ("encoder", "decoder")


def make_weights(path: Path) -> None:
    """Write the random .pt."""
    import torch

    from whisper_factory.whisper.dimensions import Dimensions
    from whisper_factory.whisper.tensors import tensor_shapes

    torch.manual_seed(0)
    state = {name: (0.02 * torch.randn(shape)).half() for name, shape in tensor_shapes(Dimensions(**SMALL_EN)).items()}
    torch.save({"dims": SMALL_EN, "model_state_dict": state}, path)


def baseline(weights: Path, out: Path, like: Path) -> float:
    """Seconds to read the .pt and write tensors of the shapes and types of the checkpoint `like`."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    empty: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        with safe_open(like / part / "rank0.safetensors", framework="pt") as stored:
            empty[part] = {name: torch.ones_like(stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118
    start = time.perf_counter()
    state = torch.load(weights, map_location="cpu", weights_only=True)["model_state_dict"]
    assert sum(float(tensor.reshape(-1)[0]) for tensor in state.values()) != 0
    for part, tensors in empty.items():
        (out / part).mkdir()
        save_file(tensors, out / part / "rank0.safetensors")
    return time.perf_counter() - start


def convert(weights: Path, out: Path, precision: str) -> float:
    """Seconds to convert as the factory does, in its two steps."""
    import torch  # noqa: F401  the reader's, as the baseline's

    from whisper_factory.backends.tensorrt_llm import packing, versions
    from whisper_factory.engine_spec import Precision
    from whisper_factory.whisper import readers
    from whisper_factory.whisper.checkpoint import write_checkpoint
    from whisper_factory.whisper.dimensions import Dimensions

    declared, canonical = Precision(precision, BITS[precision], "float16"), out / "canonical"

    def first_step() -> None:
        read = readers.read(weights, "openai")
        readers.check(read, Dimensions(**SMALL_EN), "small.en")
        write_checkpoint(canonical, "small.en", declared, read)

    start = time.perf_counter()
    first_step()
    packing.write(canonical, out, versions.parse(versions.DEFAULT), "8.7", declared, lambda line: None)
    return time.perf_counter() - start


def measure(what: str, weights: Path, out: Path, like: Path) -> None:
    """One measurement, in this process; prints it as JSON."""
    seconds = baseline(weights, out, like) if what == "baseline" else convert(weights, out, what)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "peak": peak}))


def in_a_process(what: str, weights: Path, like: Path) -> dict[str, float]:
    """One measurement, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=weights.parent) as out:
        done = subprocess.run([sys.executable, __file__, "--measure", what, str(weights), out, str(like)],
                              stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def table(weights: Path, runs: int) -> None:
    """Print the table."""
    size = weights.stat().st_size
    print("| precision | baseline s | conversion s | ratio | baseline MB | peak MB | peak / .pt |\n|" + "---|" * 7)
    for precision in BITS:
        like = weights.parent / precision
        like.mkdir()
        convert(weights, like, precision)  # also brings the .pt into the page cache
        taken: dict[str, list[dict[str, float]]] = {"baseline": [], precision: []}
        for _ in range(runs):
            for what, found in taken.items():
                found.append(in_a_process(what, weights, like))
        median = {what: {key: statistics.median(one[key] for one in found) for key in ("seconds", "peak")}
                  for what, found in taken.items()}
        base, ours = median["baseline"], median[precision]
        ratio = ours["seconds"] / base["seconds"]
        cells = [precision, f"{base['seconds']:.2f}", f"{ours['seconds']:.2f}", f"{ratio:.2f}",
                 f"{base['peak'] / 1e6:.0f}", f"{ours['peak'] / 1e6:.0f}", f"{ours['peak'] / size:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table, or measure once (in a child)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--measure", nargs=4, metavar=("WHAT", "WEIGHTS", "OUT", "LIKE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], *map(Path, options.measure[1:]))
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "small.en.pt"
        make_weights(weights)
        table(weights, options.runs)
        print(f"\n.pt: {weights.stat().st_size / 1e6:.0f} MB; {platform.machine()}, {os.cpu_count()} cores; Python "
              f"{platform.python_version()}")


if __name__ == "__main__":
    main()
