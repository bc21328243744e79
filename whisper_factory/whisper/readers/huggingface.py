"""Reads a Hugging Face directory: config.json with model.safetensors, whole or in shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.errors import UserError
from whisper_factory.safetensors_io import Tensors
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

DIMENSIONS = {
    "n_mels": "num_mel_bins", "n_audio_ctx": "max_source_positions", "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads", "n_audio_layer": "encoder_layers", "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions", "n_text_state": "d_model", "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}

# Hugging Face's words -> OpenAI's, in this order.
RENAMES = [
    (r"^model\.", ""),
    (r"^encoder\.embed_positions\.weight$", "encoder.positional_embedding"),
    (r"^decoder\.embed_positions\.weight$", "decoder.positional_embedding"),
    (r"^decoder\.embed_tokens\.", "decoder.token_embedding."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.layers\.(\d+)\.", r".blocks.\1."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
]
PROJECTION = "proj_out.weight"
EMBEDDING = "decoder.token_embedding.weight"


def read(path: Path) -> Weights:
    """Read a directory of a WhisperForConditionalGeneration or WhisperModel, fine-tuned or not.

    Raises:
        UserError: a file is missing or damaged, or the model computes something that Whisper does not.
    """
    tensors = _tensors(path)
    dimensions = _dimensions(path)
    projection = tensors.pop(PROJECTION)
    if projection is not None and not np.array_equal(projection, tensors[EMBEDDING]):
        raise UserError(f"'{path}': {PROJECTION} differs from the token embedding, and Whisper uses one matrix for "
                        "both; fine-tune with the two tied (tie_word_embeddings)")
    for name in [name for name in tensors if name.endswith(".key.bias")]:
        bias = tensors.pop(name)
        if bias is not None and bias.any():
            raise UserError(f"'{path}': {name} is not zero, and Whisper's key projection has no bias")
    return Weights(dimensions, tensors)


class _Renamed(Mapping[str, NDArray[Any]]):
    """Tensors of several mapped files under other names, each made when asked for."""

    def __init__(self, places: dict[str, tuple[Tensors, str]]):
        self._places = places

    def pop(self, name: str) -> NDArray[Any] | None:
        tensor = self.get(name)
        self._places.pop(name, None)
        return tensor

    def __getitem__(self, name: str) -> NDArray[Any]:
        file, stored = self._places[name]
        return file[stored]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def openai_name(name: str) -> str:
    """OpenAI's name of a Hugging Face tensor; an unknown name comes back as it is, for `check` to report."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _tensors(path: Path) -> _Renamed:
    places = {}
    for file in _tensor_files(path):
        tensors = Tensors(file)
        places.update({openai_name(name): (tensors, name) for name in tensors})
    return _Renamed(places)


def files(path: Path) -> list[Path]:
    """Every file of a directory that `read` reads.

    Raises:
        UserError: it holds no model.safetensors, whole or in shards.
    """
    shards = _tensor_files(path)
    return [path / "config.json", *([] if shards == [path / FILE] else [path / INDEX]), *shards]


def _tensor_files(path: Path) -> list[Path]:
    if (path / FILE).is_file():
        return [path / FILE]
    if not (path / INDEX).is_file():
        adapter = (path / "adapter_config.json").exists()
        remedy = "merge the adapter into its model, then " if adapter else ""
        raise UserError(f"'{path}' holds neither {FILE} nor {INDEX}; {remedy}save the model with "
                        "save_pretrained(DIR, safe_serialization=True)")
    shards = sorted(set(_json(path / INDEX, "weight_map").values()))
    missing = [shard for shard in shards if Path(shard).name != shard or not (path / shard).is_file()]
    if missing:
        raise UserError(f"'{path}' lacks shards that {INDEX} names: {', '.join(missing)}")
    return [path / shard for shard in shards]


def _dimensions(path: Path) -> Dimensions:
    config = _json(path / "config.json")
    settings = {"model_type": "whisper", "activation_function": "gelu", "scale_embedding": False}
    problems = [f"{key} is {config[key]!r}, not {value!r}" for key, value in settings.items()
                if config.get(key, value) != value]
    absent = [key for key in sorted(set(DIMENSIONS.values())) if not isinstance(config.get(key), int)]
    problems += [f"{key} is missing" for key in absent]
    if problems:
        raise UserError(f"'{path / 'config.json'}' is not a Whisper model's: {'; '.join(problems)}")
    return Dimensions(**{name: config[key] for name, key in DIMENSIONS.items()})


def _json(path: Path, key: str | None = None) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if key is not None:
            data = data[key]
        if not isinstance(data, dict):
            raise TypeError("not a dictionary")
        return data
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read ({type(error).__name__}: {error})") from error
