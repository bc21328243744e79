"""Makes the weights of a model that nobody trained: the same bytes on every machine, from a seed.

It says one sentence whatever it hears: row p of the decoder's positions is the embedding of the sentence's word p,
far stronger than what the random layers add. So engines of it can be built, validated and compared in seconds.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights
from whisper_factory.whisper.tensors import tensor_shapes

FILE = "random.json"  # {"seed": ..., "dimensions": {...}}: all there is to know about such weights
FIRST_POSITION = 1  # the prompt of an English-only model is two tokens; the second is where the first word is chosen
# " This engine was built from random weights." and the end of the text, in OpenAI's gpt2 vocabulary
SENTENCE = (770, 3113, 373, 3170, 422, 4738, 19590, 13, 50256)
STRENGTH = 4.0  # of a position against the embedding of the word before it


def read(path: Path) -> Weights:
    """The weights [out, in], float16, that `path`/random.json describes.

    Raises:
        UserError: the file is no such description.
    """
    try:
        said = json.loads((path / FILE).read_text(encoding="utf-8"))
        seed, dimensions = int(said["seed"]), Dimensions(**said["dimensions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path / FILE}' does not say a seed and ten dimensions: {error}") from error
    tensors = {name: _tensor(seed, name, shape) for name, shape in tensor_shapes(dimensions).items()}
    embedding = tensors["decoder.token_embedding.weight"]
    position = FIRST_POSITION + np.arange(len(SENTENCE))
    tensors["decoder.positional_embedding"][position] = STRENGTH * embedding[list(SENTENCE)]
    return Weights(dimensions, tensors)


def _tensor(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Uniform numbers from SHAKE-128 of the seed and the name: no library's random stream is pinned for good."""
    size = int(np.prod(shape))
    drawn = np.frombuffer(hashlib.shake_128(f"{seed} {name}".encode()).digest(2 * size), "<u2").reshape(shape)
    noise = drawn.astype(np.float32) * np.float32(2 / 65535) - np.float32(1)
    if name.split(".")[-2] in ("attn_ln", "cross_attn_ln", "mlp_ln", "ln", "ln_post") and name.endswith("weight"):
        value = 1 + np.float32(0.1) * noise
    elif name == "decoder.token_embedding.weight":
        value = noise * np.float32(0.25)
    elif len(shape) == 1 or name.endswith("positional_embedding"):
        value = np.float32(0.05) * noise
    else:
        value = noise * np.float32((3 / (size / shape[0])) ** 0.5 / 4)
    made: NDArray[np.float16] = value.astype(np.float16)
    return made
