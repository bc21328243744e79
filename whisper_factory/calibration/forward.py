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
TOGETHER = 1 << 15  # values of an elementwise function worked on at once, so that its temporaries stay in cache
# Of GELU's p, the highest power first: the largest error it leaves is least, 7e-8 but for that of float32.
TANH = np.array([1.479171648212295e-05, -2.732994467346283e-04, 2.0321889365502795e-03, -7.070749301442211e-03,
                   -1.060152220022619e-03, 0.29067426558293, 1.595768432435799], np.float32)
QUERIES = 512  # rows of attention weights in memory at once
SCORES = 1 << 18  # of them, in as many heads as fit
EXPONENT = 60.0  # of less, exp and its sums and products are far from what float32 cannot hold


def linear(x: Floats, tensors: Tensors, name: str) -> Floats:
    """x [positions, in] times NAME.weight [out, in], plus NAME.bias where there is one."""
    y: Floats = x @ tensors[f"{name}.weight"].T
    if (bias := tensors.get(f"{name}.bias")) is not None:
        y += bias
    return y


def layer_norm(x: Floats, tensors: Tensors, name: str) -> Floats:
    """Each position to mean 0 and variance 1, then NAME.weight and NAME.bias."""
    size = np.float32(x.shape[1])
    y: Floats = x - (x @ np.ones((x.shape[1], 1), np.float32)) / size
    y *= 1 / np.sqrt(np.einsum("ij,ij->i", y, y)[:, None] / size + EPSILON)
    y *= tensors[f"{name}.weight"]
    y += tensors[f"{name}.bias"]
    return y


def gelu(x: Floats) -> Floats:
    """x times the normal distribution's probability of less than x, within 6e-7; in place. NumPy has no erf: this is
    x / 2 (1 + tanh(x / 2 p(x² / 4))). What is less than -5.5 becomes 0, and so nothing FAINT."""
    flat = x.reshape(-1)
    squares, series = np.empty((2, min(TOGETHER, flat.size)), np.float32)
    for start in range(0, flat.size, TOGETHER):
        half = flat[start : start + TOGETHER]
        square, found = squares[: half.size], series[: half.size]
        half *= np.float32(0.5)
        np.square(half, out=square)
        np.multiply(square, TANH[0], out=found)
        for factor in TANH[1:-1]:
            found += factor
            found *= square
        found += TANH[-1]
        found *= half
        np.tanh(found, out=found)
        found += np.float32(1)
        half *= found
    return x


def attention(q: Floats, k: Floats, v: Floats, heads: int, causal: bool = False) -> Floats:
    """Queries [n, state] over keys and values [m, state]; causal: position i of n sees the first i + 1 of m."""
    q = q * np.float32((q.shape[1] // heads) ** -0.5)
    mixed, ones = np.empty_like(q), np.ones((len(k), 1), np.float32)
    queries, keys, values, made = (part.reshape(len(part), heads, -1).transpose(1, 0, 2) for part in (q, k, v, mixed))
    bounded = _longest(queries) * _longest(keys) < EXPONENT
    several = min(heads, max(1, SCORES // (min(len(q), QUERIES) * len(k))))
    held = np.empty((several, min(len(q), QUERIES), len(k)), np.float32)
    for start in range(0, len(q), QUERIES):
        rows = slice(start, start + QUERIES)
        for first in range(0, heads, several):
            own = slice(first, first + several)
            some = queries[own, rows]
            scores = np.matmul(some, keys[own].transpose(0, 2, 1), out=held[: len(some), : some.shape[1]])
            if causal:
                later = np.arange(len(k)) > np.arange(start, start + scores.shape[1])[:, None]
                np.copyto(scores, -np.inf, where=later)
            if not bounded:
                scores -= scores.max(axis=2, keepdims=True)
            np.exp(scores, out=scores)
            np.divide(scores @ values[own], scores @ ones, out=made[own, rows])
    return mixed


def _longest(vectors: Floats) -> float:
    """The largest norm of vectors [.., size]."""
    return float(np.sqrt(np.einsum("...i,...i->...", vectors, vectors).max()))


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
