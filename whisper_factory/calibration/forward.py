"""Whisper's forward pass in NumPy, float32, piece by piece: calibration stops between any two linear layers.

Arrays are [positions, channels] of one window: windows have different lengths, and one of them is enough to keep a
processor's matrix units busy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]
KeysValues = list[tuple[Floats, Floats]]  # of each decoder block

EPSILON = np.float32(1e-5)  # of LayerNorm
TOGETHER = 1 << 16  # values of an elementwise function worked on at once, so that its temporaries stay in cache
FAINT = np.float32(1e-18)  # products of what is less are subnormal: processors take a hundred times as long for those
QUERIES = 512  # rows of attention weights in memory at once


def linear(x: Floats, tensors: Tensors, name: str) -> Floats:
    """x [positions, in] times NAME.weight [out, in], plus NAME.bias where there is one."""
    y: Floats = x @ tensors[f"{name}.weight"].T
    if (bias := tensors.get(f"{name}.bias")) is not None:
        y += bias
    return y


def layer_norm(x: Floats, tensors: Tensors, name: str) -> Floats:
    """Each position to mean 0 and variance 1, then NAME.weight and NAME.bias."""
    y: Floats = x - x.mean(axis=1, keepdims=True)
    y /= np.sqrt(np.mean(np.square(y), axis=1, keepdims=True) + EPSILON)
    y *= tensors[f"{name}.weight"]
    y += tensors[f"{name}.bias"]
    return y


def gelu(x: Floats) -> Floats:
    """x times the normal distribution's probability of less than x, but 0 where that is FAINT; in place. NumPy has no
    erf: see `_tail`."""
    flat = x.reshape(-1)
    for start in range(0, flat.size, TOGETHER):
        piece = flat[start : start + TOGETHER]
        tail = _tail(np.abs(piece))
        piece *= np.where(piece < 0, tail, 1 - tail)
        piece *= np.abs(piece) > FAINT
    return x


def _tail(z: Floats) -> Floats:
    """The normal distribution's probability of more than z >= 0, within 1e-7 (Abramowitz and Stegun, 7.1.26)."""
    t = 1 / (1 + np.float32(0.3275911 / 2**0.5) * z)
    series = t * np.float32(1.061405429 / 2)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series += np.float32(factor / 2)
        series *= t
    found: Floats = series * np.exp(np.square(z) * np.float32(-0.5))
    return found


def attention(q: Floats, k: Floats, v: Floats, heads: int, causal: bool = False) -> Floats:
    """Queries [n, state] over keys and values [m, state]; causal: position i of n sees the first i + 1 of m."""
    split = [np.ascontiguousarray(part.reshape(len(part), heads, -1).transpose(1, 0, 2)) for part in (q, k, v)]
    queries, keys, values = split
    queries *= np.float32(queries.shape[2] ** -0.5)
    mixed = np.empty((heads, len(q), values.shape[2]), np.float32)
    for start in range(0, len(q), QUERIES):
        rows = slice(start, start + QUERIES)
        scores = queries[:, rows] @ keys.transpose(0, 2, 1)
        if causal:
            later = np.arange(len(k)) > np.arange(start, start + scores.shape[1])[:, None]
            scores[:, later] = -np.inf
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        mixed[:, rows] = scores @ values
    return np.ascontiguousarray(mixed.transpose(1, 0, 2)).reshape(len(q), -1)


def stem(mel: Floats, tensors: Tensors) -> Floats:
    """What the encoder's first block sees of a window [n_mels, frames]: [frames / 2, state], positions added."""
    x = _convolution(mel, tensors, "encoder.conv1", 1)
    x = np.ascontiguousarray(_convolution(x, tensors, "encoder.conv2", 2).T)
    x += tensors["encoder.positional_embedding"][: len(x)]
    return x


def _convolution(x: Floats, tensors: Tensors, name: str, stride: int) -> Floats:
    """A convolution of width 3 with one position of zeros at both ends, and GELU: [in, n] to [out, n / stride]."""
    padded = np.pad(x, ((0, 0), (1, 1)))
    columns = np.concatenate([padded[:, start : start + x.shape[1] : stride] for start in range(3)])
    weight = tensors[f"{name}.weight"]
    flat = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)
    return gelu(flat @ columns + tensors[f"{name}.bias"][:, None])


def encode(mel: Floats, tensors: Tensors, layers: int, heads: int) -> Floats:
    """The encoder's states [frames / 2, state] of a window."""
    x = stem(mel, tensors)
    for layer in range(layers):
        block = f"encoder.blocks.{layer}"
        x += self_attention(x, tensors, block, heads)
        x += mlp(x, tensors, block)
    return layer_norm(x, tensors, "encoder.ln_post")


def self_attention(x: Floats, tensors: Tensors, block: str, heads: int, causal: bool = False) -> Floats:
    """What a block's self-attention adds to x."""
    normal = layer_norm(x, tensors, f"{block}.attn_ln")
    q, k, v = (linear(normal, tensors, f"{block}.attn.{part}") for part in ("query", "key", "value"))
    return linear(attention(q, k, v, heads, causal), tensors, f"{block}.attn.out")


def cross_keys_values(states: Floats, tensors: Tensors, layers: int) -> KeysValues:
    """What each of the decoder's blocks attends to of a window's states [n, state]."""
    return [(linear(states, tensors, f"decoder.blocks.{layer}.cross_attn.key"),
             linear(states, tensors, f"decoder.blocks.{layer}.cross_attn.value")) for layer in range(layers)]


def cross_attention(x: Floats, seen: tuple[Floats, Floats], tensors: Tensors, block: str, heads: int) -> Floats:
    """What a block's attention to the encoder's states, as keys and values, adds to x."""
    q = linear(layer_norm(x, tensors, f"{block}.cross_attn_ln"), tensors, f"{block}.cross_attn.query")
    return linear(attention(q, *seen, heads), tensors, f"{block}.cross_attn.out")


def mlp(x: Floats, tensors: Tensors, block: str) -> Floats:
    """What a block's perceptron adds to x."""
    hidden = gelu(linear(layer_norm(x, tensors, f"{block}.mlp_ln"), tensors, f"{block}.mlp.0"))
    return linear(hidden, tensors, f"{block}.mlp.2")


def embed(tokens: NDArray[np.int64], tensors: Tensors) -> Floats:
    """What the decoder's first block sees of tokens [n], from position 0 on."""
    found: Floats = tensors["decoder.token_embedding.weight"][tokens]
    return found + tensors["decoder.positional_embedding"][: len(tokens)]


def decode(tokens: NDArray[np.int64], cross: KeysValues, tensors: Tensors, heads: int) -> Floats:
    """The decoder's states [n, state] of tokens [n], normalised: times the embedding they are logits."""
    x = embed(tokens, tensors)
    for layer, seen in enumerate(cross):
        block = f"decoder.blocks.{layer}"
        x += self_attention(x, tensors, block, heads, causal=True)
        x += cross_attention(x, seen, tensors, block, heads)
        x += mlp(x, tensors, block)
    return layer_norm(x, tensors, "decoder.ln")
