"""config.json of a TensorRT-LLM checkpoint: the keys and values that upstream's own converter writes.

Upstream refuses keys it does not know and misses those it does, so they follow the generation exactly. Those of 0.12
and 1.x are recorded (the tests compare them); G2's were read from its sources.
"""

from __future__ import annotations

from typing import Any, Literal

from whisper_factory.backends.tensorrt_llm.versions import Release
from whisper_factory.engine_spec import Precision
from whisper_factory.whisper.dimensions import Dimensions

QuantAlgo = Literal["W8A16", "W4A16"]


def quant_algo(precision: Precision) -> QuantAlgo | None:
    """Upstream's name for weight-only int8 or int4."""
    return None if not precision.bits else "W8A16" if precision.bits == 8 else "W4A16"


def bits(algorithm: QuantAlgo | None) -> int:
    """The inverse: 8, 4, or 0 for plain floats."""
    return {"W8A16": 8, "W4A16": 4}[algorithm] if algorithm else 0


def encoder(release: Release, dimensions: Dimensions, algorithm: QuantAlgo | None) -> dict[str, Any]:
    """encoder/config.json."""
    d = dimensions
    positions = {"n_audio_ctx": d.n_audio_ctx} if release.generation == "G1" else {
        "max_position_embeddings": d.n_audio_ctx, "has_position_embedding": True}
    return {
        "architecture": "WhisperEncoder",
        "dtype": "float16",
        "hidden_act": "gelu",
        "hidden_size": d.n_audio_state,
        "n_mels": d.n_mels,
        "num_attention_heads": d.n_audio_head,
        "num_hidden_layers": d.n_audio_layer,
        "num_languages": d.num_languages,
        "quantization": {"quant_algo": algorithm},
        "vocab_size": d.n_vocab,
        **positions,
    }


def decoder(release: Release, dimensions: Dimensions, algorithm: QuantAlgo | None) -> dict[str, Any]:
    """decoder/config.json; its encoder_* describe the cross-attention, which is as wide as the decoder."""
    d = dimensions
    # Recorded: skip_cross_qkv in 0.12, skip_cross_kv in 1.x. That 0.15.0 itself has the new name, when it changed
    # somewhere in that version's development, is inference.
    skip_cross = "skip_cross_qkv" if release.generation == "G1" else "skip_cross_kv"
    return {
        "architecture": "DecoderModel",
        "dtype": "float16",
        "embedding_sharding_dim": 0,
        "encoder_head_size": None,
        "encoder_hidden_size": d.n_text_state,
        "encoder_num_heads": d.n_text_head,
        "ffn_hidden_size": 4 * d.n_text_state,
        "has_attention_qkvo_bias": True,
        "has_embedding_layernorm": False,
        "has_embedding_scale": False,
        "has_mlp_bias": True,
        "has_model_final_layernorm": True,
        "has_position_embedding": True,
        "head_size": d.head_size,
        "hidden_act": "gelu",
        "hidden_size": d.n_text_state,
        "layernorm_position": 0,  # before the block
        "layernorm_type": 0,  # LayerNorm, not RMSNorm
        "logits_dtype": "float16",
        "max_distance": 0,
        "max_position_embeddings": d.n_text_ctx,
        "model_type": "whisper",
        "norm_epsilon": 1e-05,
        "num_attention_heads": d.n_text_head,
        "num_buckets": 0,
        "num_hidden_layers": d.n_text_layer,
        "q_scaling": 1.0,
        "quantization": {"quant_algo": algorithm},
        "relative_attention": False,
        "rescale_before_lm_head": False,
        skip_cross: False,
        "use_parallel_embedding": False,
        "use_prompt_tuning": False,
        "vocab_size": d.n_vocab,
    }


def dimensions(encoder: dict[str, Any], decoder: dict[str, Any]) -> Dimensions:
    """The model's dimensions, out of the two configs.

    Raises:
        KeyError, ValueError: they are not those of a Whisper model.
    """
    positions = "n_audio_ctx" if "n_audio_ctx" in encoder else "max_position_embeddings"
    return Dimensions(
        n_mels=encoder["n_mels"], n_audio_ctx=encoder[positions], n_audio_state=encoder["hidden_size"],
        n_audio_head=encoder["num_attention_heads"], n_audio_layer=encoder["num_hidden_layers"],
        n_vocab=decoder["vocab_size"], n_text_ctx=decoder["max_position_embeddings"],
        n_text_state=decoder["hidden_size"], n_text_head=decoder["num_attention_heads"],
        n_text_layer=decoder["num_hidden_layers"],
    )
