"""stamp.json, beside encoder/ and decoder/: what a checkpoint was packed for, which upstream itself writes nowhere.

    {"format": 1, "generation": "G1", "layout": "sm80" | "sm90" | "none", "version": "0.12.0",
     "compute_capability": "8.7", "precision": "int8", "quant_algo": "W8A16",
     "packed_by": {"whisper_factory", "numpy"}, "files": {path: {"bytes", "sha256"}}}

Layout "none" holds floats alone; with a quant_algo, trtllm-build quantises them for the GPU that it runs on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from whisper_factory import digest
from whisper_factory.backends.tensorrt_llm import versions
from whisper_factory.errors import UserError

STAMP = "stamp.json"
FORMAT = 1
CONFIG, TENSORS = "config.json", "rank0.safetensors"
FILES = tuple(f"{part}/{name}" for part in ("encoder", "decoder") for name in (CONFIG, TENSORS))

_KEYS = {"format", "generation", "layout", "version", "compute_capability", "precision", "quant_algo", "packed_by",
         "files"}
_ALGORITHMS = {"float16": None, "int8": "W8A16", "int4": "W4A16"}


def write_stamp(directory: Path, stamp: dict[str, Any]) -> None:
    """Write stamp.json; the same stamp gives the same bytes."""
    text = json.dumps({"format": FORMAT, **stamp}, indent=2, sort_keys=True) + "\n"
    (directory / STAMP).write_text(text, encoding="utf-8")


def read_stamp(directory: Path) -> dict[str, Any]:
    """The stamp of a checkpoint directory, its own words held against each other (`verify` reads the files).

    Raises:
        UserError: there is none, or it is not one that `write_stamp` wrote.
    """
    path = directory / STAMP
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        if stamp["format"] != FORMAT:
            raise UserError(f"{path}: stamp format {stamp['format']}, this version reads {FORMAT}; convert it again")
        wrong = sorted(stamp.keys() ^ _KEYS)
        wrong += [] if sorted(stamp["files"]) == sorted(FILES) else ["files"]
        wrong += [] if stamp["layout"] in ("sm80", "sm90", "none") else ["layout"]
        wrong += [] if _ALGORITHMS[stamp["precision"]] == stamp["quant_algo"] else ["quant_algo"]
        wrong += [] if versions.parse(stamp["version"]).generation == stamp["generation"] else ["generation"]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not as this tool writes them")
    except FileNotFoundError as error:
        raise UserError(f"'{directory}' has no {STAMP}: it is not a TensorRT-LLM checkpoint of this tool, and which "
                        "GPU its integers are packed for cannot be known; make one with backend=tensorrt_llm "
                        "stop_after=convert") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' is damaged ({type(error).__name__}: {error}); convert it again") from error
    read: dict[str, Any] = stamp
    return read


def describe(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as they stand in the stamp."""
    return {"bytes": path.stat().st_size, "sha256": digest.of_file(path)}


def verify(directory: Path, stamp: dict[str, Any]) -> None:
    """Hold the four files against the stamp.

    Raises:
        UserError: one is missing, or is not the one that was stamped.
    """
    for name, expected in stamp["files"].items():
        path = directory / name
        if not path.is_file():
            raise UserError(f"'{path}' is missing; copy the whole checkpoint directory, or convert it again")
        if describe(path) != expected:
            raise UserError(f"'{path}' is not the file that {STAMP} was written for: damaged, cut short or exchanged; "
                            "copy the checkpoint directory again, or convert it again")
