"""Random weights of a very small Whisper, for tests that need a model but not speech."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights
from whisper_factory.whisper.tensors import tensor_shapes


def tiny_dimensions(multilingual: bool = False, **dims: int) -> Dimensions:
    """Two layers of two heads of 64, with the released models' vocabulary and context lengths."""
    numbers = dict(
        n_mels=80, n_audio_ctx=1500, n_audio_state=128, n_audio_head=2, n_audio_layer=2,
        n_vocab=51865 if multilingual else 51864, n_text_ctx=448, n_text_state=128, n_text_head=2, n_text_layer=2,
    )
    return Dimensions(**{**numbers, **dims})


def tiny_weights(seed: int = 0, multilingual: bool = False, **dims: int) -> Weights:
    """Random float16 weights, scaled so that activations stay near one; `dims` override dimensions."""
    dimensions = tiny_dimensions(multilingual, **dims)
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float16]] = {}
    for name, shape in tensor_shapes(dimensions).items():
        noise = rng.standard_normal(shape, dtype=np.float32)
        if name == "encoder.positional_embedding":
            value = sinusoids(*shape)
        elif name.endswith("positional_embedding"):
            value = 0.1 * noise
        elif name.split(".")[-2] in ("attn_ln", "cross_attn_ln", "mlp_ln", "ln", "ln_post") and name.endswith("weight"):
            value = 1 + 0.1 * noise
        elif name.endswith("bias"):
            value = 0.1 * noise
        elif name == "decoder.token_embedding.weight":
            value = noise * (2.0 / np.sqrt(shape[1]))  # logits of a normed state spread by about two
        else:
            value = noise / np.sqrt(np.prod(shape[1:]))
        tensors[name] = value.astype(np.float16)
    return Weights(dimensions, tensors)


def sinusoids(length: int, channels: int) -> NDArray[np.float32]:
    """The encoder's position table [length, channels]: sines, then cosines, of geometric frequencies."""
    frequencies = np.exp(-np.log(10_000.0) / (channels // 2 - 1) * np.arange(channels // 2))
    angles = np.arange(length)[:, None] * frequencies[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
