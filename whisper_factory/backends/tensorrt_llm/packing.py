"""A canonical checkpoint to the directories that trtllm-build reads, on any machine.

    encoder/config.json, encoder/rank0.safetensors, decoder/..., stamp.json

Upstream's converter needs a GPU, only to ask for its compute capability; here the target's is declared. The integers
are the canonical ones, in the order the target's kernels want; nothing is quantised again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

import whisper_factory
from whisper_factory import safetensors_io, threads
from whisper_factory.backends.tensorrt_llm import configs, layout, names, stamp
from whisper_factory.backends.tensorrt_llm.families import Family, checkpoint_precision, family
from whisper_factory.backends.tensorrt_llm.names import Stored
from whisper_factory.backends.tensorrt_llm.sinusoids import sinusoids
from whisper_factory.backends.tensorrt_llm.versions import Release
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.progress import BYTES, Progress, silent
from whisper_factory.whisper.checkpoint import Checkpoint, scale_name
from whisper_factory.whisper.tensors import tensor_shapes

Named = tuple[str, NDArray[Any]]


def write(checkpoint: Path, out: Path, release: Release, compute_capability: str, precision: Precision,
          say: Callable[[str], None], progress: Progress = silent) -> None:
    """Pack a canonical checkpoint directory into `out` (made if missing). The same input gives the same bytes.

    Args:
        checkpoint: of the precision that `families.checkpoint_precision` names.
        compute_capability: of the GPU that will run the engine, "8.7".
        precision: what the engine is to be: float16, int8 or int4.
        say: takes one line of progress at a time.
        progress: of the bytes of each part.

    Raises:
        UserError: a checkpoint of another precision, or whose matrices do not fit the layout.
    """
    wanted = checkpoint_precision(precision, compute_capability, release)
    source = Checkpoint.open(checkpoint)
    if source.precision != wanted:
        raise UserError(f"'{checkpoint}' is {source.precision.name}; a {precision.name} engine for compute capability "
                        f"{compute_capability} with TensorRT-LLM {release.text} is packed from {wanted.name}; "
                        "convert it again")
    algorithm = configs.quant_algo(precision)
    packed = family(compute_capability, release) if precision.bits else None
    files: dict[str, dict[str, Any]] = {}
    for part in names.PARTS:
        say(f"packing the {part}" if packed else f"writing the {part}")
        (out / part).mkdir(parents=True, exist_ok=True)
        config = configs.encoder if part == "encoder" else configs.decoder
        text = json.dumps(config(release, source.dimensions, algorithm), indent=2, sort_keys=True) + "\n"
        (out / part / stamp.CONFIG).write_text(text, encoding="utf-8")
        files[f"{part}/{stamp.CONFIG}"] = stamp.describe(out / part / stamp.CONFIG)
        stored = names.stored(part, release.generation, source.dimensions)
        files[f"{part}/{stamp.TENSORS}"] = _write(out / part / stamp.TENSORS, stored, source, packed, progress)
    stamp.write_stamp(out, {
        "generation": release.generation, "layout": packed or "none", "version": release.text,
        "compute_capability": compute_capability, "precision": precision.name, "quant_algo": algorithm,
        "packed_by": {"whisper_factory": whisper_factory.__version__, "numpy": metadata.version("numpy")},
        "files": files,
    })


def _write(path: Path, stored: list[Stored], source: Checkpoint, packed: Family | None,
           progress: Progress) -> dict[str, Any]:
    """Write a part's tensors; its size and SHA-256, which is taken while the next tensors are made."""
    planned, sha256 = _layout(stored, source), hashlib.sha256()
    tensors = _tensors(stored, safetensors_io.in_order(planned), source, packed)
    with ThreadPoolExecutor(1) as digesting, progress(safetensors_io.size(planned), BYTES) as advance:

        def heard(data: bytes | memoryview) -> None:
            digesting.submit(sha256.update, data)
            advance(len(data))

        safetensors_io.write(path, planned, tensors, heard)
    return {"bytes": path.stat().st_size, "sha256": sha256.hexdigest()}


def _layout(stored: list[Stored], source: Checkpoint) -> safetensors_io.Layout:
    shapes, bits = tensor_shapes(source.dimensions), source.precision.bits
    planned: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {}
    for tensor in stored:
        first, *others = shapes[str(tensor.sources[0])]
        shape = (first * len(tensor.sources), *others)
        if tensor.quantized and bits:
            planned[tensor.name] = ("int8", layout.packed_shape(shape[0], shape[1], bits))
            planned[tensor.scale_name] = ("float16", shape[:1])
        else:
            trailing = (1,) if tensor.has_trailing_axis else ()
            planned[tensor.name] = ("float32" if tensor.is_sinusoids else "float16", shape + trailing)
    return planned


def _tensors(stored: list[Stored], order: list[str], source: Checkpoint, packed: Family | None) -> Iterator[Named]:
    """The tensors of a part, in order; a few are made ahead."""
    owners = {tensor.name: tensor for tensor in stored} | {tensor.scale_name: tensor for tensor in stored}
    return threads.ahead(lambda name: (name, _made(name, owners[name], source, packed)), order)


def _made(name: str, tensor: Stored, source: Checkpoint, packed: Family | None) -> NDArray[Any]:
    """A tensor as it is stored: of a quantised one the packed integers, or under its other name the scales."""
    if tensor.is_sinusoids:
        return sinusoids(source.dimensions.n_audio_ctx, source.dimensions.n_audio_state)
    if tensor.quantized and packed:
        if name == tensor.scale_name:
            return _stacked([source.raw[scale_name(str(part))] for part in tensor.sources]).astype(np.float16)
        integers = [found for part in tensor.sources if (found := source.quantized(str(part)))]
        return layout.pack(_stacked([q for q, _ in integers]), source.precision.bits, packed)
    parts = [source.tensor(part) if part else None for part in tensor.sources]
    value = _stacked([np.zeros_like(parts[0]) if part is None else part for part in parts])
    return value[..., None] if tensor.has_trailing_axis else value


def _stacked(rows: list[NDArray[Any]]) -> NDArray[Any]:
    return rows[0] if len(rows) == 1 else np.concatenate(rows)
