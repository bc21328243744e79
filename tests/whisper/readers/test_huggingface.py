"""Hugging Face directories, written here from random weights by the rules of that format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.tiny_model import tiny_weights
from whisper_factory.errors import UserError
from whisper_factory.whisper.readers import check, huggingface

TINY = tiny_weights(seed=1, multilingual=True)

# OpenAI's words -> Hugging Face's: the other way round from the reader, and written down apart from it.
WORDS = {
    "blocks": "layers", "attn_ln": "self_attn_layer_norm", "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp_ln": "final_layer_norm", "attn": "self_attn", "cross_attn": "encoder_attn", "query": "q_proj",
    "key": "k_proj", "value": "v_proj", "out": "out_proj", "ln_post": "layer_norm", "ln": "layer_norm",
    "token_embedding": "embed_tokens", "positional_embedding": "embed_positions.weight",
}


def hf_name(name: str) -> str:
    name = re.sub(r"mlp\.0", "fc1", re.sub(r"mlp\.2", "fc2", name))
    return ".".join(WORDS.get(word, word) for word in name.split("."))


def config() -> dict[str, Any]:
    return {
        "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "num_mel_bins": 80,
        "d_model": 128,
        "max_source_positions": 1500, "max_target_positions": 448, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 51865, "activation_function": "gelu",
        "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "scale_embedding": False, "torch_dtype": "float16",
    }


def state(prefix: str = "model.", dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    return {prefix + hf_name(name): torch.from_numpy(array).to(dtype) for name, array in TINY.tensors.items()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def run(tensors: dict[str, torch.Tensor], changes: dict[str, Any] | None = None) -> Path:
        (tmp_path / "config.json").write_text(json.dumps({**config(), **(changes or {})}))
        safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        return tmp_path

    return run


def test_the_names_are_hugging_faces() -> None:
    names = set(state())
    assert len(names) == len(TINY.tensors)
    assert {
        "model.encoder.conv1.weight", "model.encoder.embed_positions.weight", "model.encoder.layer_norm.weight",
        "model.encoder.layers.0.self_attn.k_proj.weight", "model.encoder.layers.1.fc2.bias",
        "model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight", "model.decoder.layer_norm.bias",
        "model.decoder.layers.0.encoder_attn.out_proj.weight", "model.decoder.layers.1.encoder_attn_layer_norm.weight",
        "model.decoder.layers.1.self_attn_layer_norm.weight", "model.decoder.layers.1.final_layer_norm.bias",
    } <= names


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_round_trip(save: Callable[..., Path], prefix: str, dtype: torch.dtype) -> None:
    saved = state(prefix, dtype)
    weights = huggingface.read(save(saved))
    check(weights, TINY.dimensions, "tiny")
    for name in TINY.tensors:
        tensor = saved[prefix + hf_name(name)]
        assert weights.tensors[name].dtype == (np.float16 if dtype == torch.float16 else np.float32)
        np.testing.assert_array_equal(weights.tensors[name], tensor.float().numpy(), strict=False)


def test_shards(save: Callable[..., Path]) -> None:
    tensors = state()
    path = save(tensors)
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {f"model-0000{number}-of-00002.safetensors": names[number - 1 :: 2] for number in (1, 2)}
    for shard, its in shards.items():
        safetensors.torch.save_file({name: tensors[name] for name in its}, path / shard)
    places = {name: shard for shard, its in shards.items() for name in its}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    check(huggingface.read(path), TINY.dimensions, "tiny")
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks shards.*model-00002-of-00002"):
        huggingface.read(path)


def test_a_tied_projection_is_dropped_and_another_refused(save: Callable[..., Path]) -> None:
    tensors = state()
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()
    check(huggingface.read(save(tensors)), TINY.dimensions, "tiny")
    tensors["proj_out.weight"][-1, -1] += 1
    with pytest.raises(UserError, match=r"proj_out\.weight differs from the token embedding"):
        huggingface.read(save(tensors))


def test_a_zero_key_bias_is_dropped_and_another_refused(save: Callable[..., Path]) -> None:
    tensors = state()
    tensors["model.decoder.layers.1.encoder_attn.k_proj.bias"] = torch.zeros(128)
    check(huggingface.read(save(tensors)), TINY.dimensions, "tiny")
    tensors["model.decoder.layers.1.encoder_attn.k_proj.bias"][3] = 0.1
    with pytest.raises(UserError, match=r"decoder\.blocks\.1\.cross_attn\.key\.bias is not zero"):
        huggingface.read(save(tensors))


def test_an_unknown_tensor_is_reported_under_its_own_name(save: Callable[..., Path]) -> None:
    weights = huggingface.read(save({**state(), "model.classifier.weight": torch.zeros(2)}))
    with pytest.raises(UserError, match=r"classifier\.weight is not part of a Whisper model"):
        check(weights, TINY.dimensions, "tiny")


@pytest.mark.parametrize(("changes", "said"), [
    ({"model_type": "wav2vec2"}, "model_type is 'wav2vec2', not 'whisper'"),
    ({"activation_function": "relu", "scale_embedding": True}, "function is 'relu'.*; scale_embedding is True"),
    ({"d_model": None}, "d_model is missing"),
])
def test_another_kind_of_model(save: Callable[..., Path], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        huggingface.read(save(state(), changes))


def test_damaged_and_missing_files(save: Callable[..., Path]) -> None:
    path = save(state())
    whole = (path / "model.safetensors").read_bytes()
    for content in (b"", whole[:4], whole[:1000], whole[:-1], b"\xff" * 100, b"\2\0\0\0\0\0\0\0[]"):
        (path / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="not a safetensors file, or is cut short") as error:
            huggingface.read(path)
        assert "\n" not in str(error.value)
    (path / "model.safetensors").unlink()
    (path / "adapter_config.json").touch()
    with pytest.raises(UserError, match="merge the adapter into its model, then save the model with save_pretrained"):
        huggingface.read(path)
    (path / "model.safetensors").write_bytes(whole)
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json' cannot be read"):
        huggingface.read(path)
