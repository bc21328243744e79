"""A Whisper model's tensors: their names, their shapes, and which of them are quantised. Imports no numpy."""

from __future__ import annotations

import re

from whisper_factory.whisper.dimensions import Dimensions

_QUANTIZED = re.compile(r"(en|de)coder\.blocks\.\d+\.((cross_)?attn\.(query|key|value|out)|mlp\.[02])\.weight")


def is_quantized(name: str) -> bool:
    """Whether int8 and int4 apply to this tensor: the linears inside the blocks, and nothing else."""
    return _QUANTIZED.fullmatch(name) is not None


def tensor_shapes(dimensions: Dimensions) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a Whisper model of these dimensions."""
    d = dimensions
    audio, text = d.n_audio_state, d.n_text_state
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (audio, d.n_mels, 3),
        "encoder.conv1.bias": (audio,),
        "encoder.conv2.weight": (audio, audio, 3),
        "encoder.conv2.bias": (audio,),
        "encoder.positional_embedding": (d.n_audio_ctx, audio),
        "decoder.token_embedding.weight": (d.n_vocab, text),
        "decoder.positional_embedding": (d.n_text_ctx, text),
        **_norm("encoder.ln_post", audio),
        **_norm("decoder.ln", text),
    }
    for layer in range(d.n_audio_layer):
        shapes.update(_block(f"encoder.blocks.{layer}", audio, cross=False))
    for layer in range(d.n_text_layer):
        shapes.update(_block(f"decoder.blocks.{layer}", text, cross=True))
    return shapes


def _norm(prefix: str, state: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (state,), f"{prefix}.bias": (state,)}


def _attention(prefix: str, state: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for projection in ("query", "key", "value", "out"):
        shapes[f"{prefix}.{projection}.weight"] = (state, state)
        if projection != "key":  # softmax ignores what a key bias would add
            shapes[f"{prefix}.{projection}.bias"] = (state,)
    return shapes


def _block(prefix: str, state: int, cross: bool) -> dict[str, tuple[int, ...]]:
    shapes = {**_attention(f"{prefix}.attn", state), **_norm(f"{prefix}.attn_ln", state)}
    if cross:
        shapes |= {**_attention(f"{prefix}.cross_attn", state), **_norm(f"{prefix}.cross_attn_ln", state)}
    shapes |= {
        f"{prefix}.mlp.0.weight": (4 * state, state),
        f"{prefix}.mlp.0.bias": (4 * state,),
        f"{prefix}.mlp.2.weight": (state, 4 * state),
        f"{prefix}.mlp.2.bias": (state,),
        **_norm(f"{prefix}.mlp_ln", state),
    }
    return shapes


def graph_of(name: str) -> str:
    """Where backends put a tensor: "encoder", with the projection of cross-attention's keys and values, "decoder", or
    "embedding", the tokens', which is the output head too."""
    if name.startswith("decoder.token_embedding"):
        return "embedding"
    if ".cross_attn.key." in name or ".cross_attn.value." in name:
        return "encoder"
    return name.partition(".")[0]
