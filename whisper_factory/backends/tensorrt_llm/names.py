"""TensorRT-LLM's tensors as made of OpenAI's, in each generation of their names.

A checkpoint is two lists of `Stored`; read one way they say how to pack, read the other way how to unpack. Upstream
fuses query, key and value into one matrix with one bias (zeros for the key), gives convolutions a trailing axis, and
writes the token embedding a second time as the output head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whisper_factory.backends.tensorrt_llm.versions import Generation
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tensors import is_quantized

Part = Literal["encoder", "decoder"]
PARTS: tuple[Part, ...] = ("encoder", "decoder")

ENCODER_POSITIONS = "encoder.positional_embedding"  # the sinusoid table
SCALE = ".per_channel_scale"
_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Stored:
    """A tensor of rank0.safetensors, and OpenAI's tensors whose rows it stacks."""

    name: str
    sources: tuple[str | None, ...]  # None: zeros, the bias that a key does not have

    @property
    def quantized(self) -> bool:
        """Whether int8 and int4 apply to it."""
        return self.sources[0] is not None and is_quantized(self.sources[0])

    @property
    def scale_name(self) -> str:
        """X.per_channel_scale for X.weight."""
        return self.name.removesuffix(".weight") + SCALE

    @property
    def has_trailing_axis(self) -> bool:
        """Convolutions are [out, in, width, 1], since upstream computes them in two dimensions."""
        return ".conv" in f".{self.name}" and self.name.endswith(".weight")

    @property
    def is_sinusoids(self) -> bool:
        """The encoder's positions: recomputed, and of float32 in every precision."""
        return self.sources == (ENCODER_POSITIONS,)

    @property
    def is_copy(self) -> bool:
        """The output head says nothing that the token embedding does not."""
        return self.name == _HEAD


# OpenAI's name -> upstream's, by generation. Names without a suffix stand for their .weight and .bias.
_NAMES: dict[Generation, dict[str, str]] = {
    "G1": {
        "encoder.conv1": "conv1",
        "encoder.conv2": "conv2",
        ENCODER_POSITIONS: "positional_embedding",
        "encoder.blocks": "encoder_layers",
        "encoder.ln_post": "ln_post",
        "decoder.token_embedding.weight": "embedding.vocab_embedding.weight",
        "decoder.positional_embedding": "embedding.position_embedding.weight",
        "decoder.blocks": "decoder_layers",
        "decoder.ln": "final_layernorm",
    },
}
_NAMES["G2"] = {**_NAMES["G1"], ENCODER_POSITIONS: "position_embedding.weight"}
_NAMES["G3"] = {
    "encoder.conv1": "transformer.conv1",
    "encoder.conv2": "transformer.conv2",
    ENCODER_POSITIONS: "transformer.position_embedding.weight",
    "encoder.blocks": "transformer.layers",
    "encoder.ln_post": "transformer.ln_f",
    "decoder.token_embedding.weight": "transformer.vocab_embedding.weight",
    "decoder.positional_embedding": "transformer.position_embedding.weight",
    "decoder.blocks": "transformer.layers",
    "decoder.ln": "transformer.ln_f",
}

# Inside a layer, the same in every generation; {a} is "attention" in the encoder, "self_attention" in the decoder.
_QKV = ("query", "key", "value")
_LAYER = {"attn_ln": "{a}_layernorm", "mlp.0": "mlp.fc", "mlp.2": "mlp.proj", "mlp_ln": "mlp_layernorm"}
_CROSS = {"cross_attn_ln": "cross_attention_layernorm"}


def stored(part: Part, generation: Generation, dimensions: Dimensions) -> list[Stored]:
    """Every tensor of the part's rank0.safetensors but the scales, which follow from it."""
    names = {ours: theirs for ours, theirs in _NAMES[generation].items() if ours.startswith(f"{part}.")}
    blocks = names.pop(f"{part}.blocks")
    found: list[Stored] = []
    for ours, theirs in names.items():
        found += [Stored(theirs, (ours,))] if ours.endswith(("embedding", ".weight")) else _both(ours, theirs)
    if part == "decoder":
        found.append(Stored(_HEAD, ("decoder.token_embedding.weight",)))
    layers = dimensions.n_audio_layer if part == "encoder" else dimensions.n_text_layer
    for layer in range(layers):
        found += _layer(f"{part}.blocks.{layer}", f"{blocks}.{layer}", part)
    return found


def _layer(ours: str, theirs: str, part: Part) -> list[Stored]:
    own = "attention" if part == "encoder" else "self_attention"
    attentions = {"attn": own} if part == "encoder" else {"attn": own, "cross_attn": "cross_attention"}
    found: list[Stored] = []
    for short, attention in attentions.items():
        for kind in ("weight", "bias"):
            sources = [None if (row, kind) == ("key", "bias") else f"{ours}.{short}.{row}.{kind}" for row in _QKV]
            found.append(Stored(f"{theirs}.{attention}.qkv.{kind}", tuple(sources)))
        found += _both(f"{ours}.{short}.out", f"{theirs}.{attention}.dense")
    for short, name in (_LAYER if part == "encoder" else {**_LAYER, **_CROSS}).items():
        found += _both(f"{ours}.{short}", f"{theirs}.{name.format(a=own)}")
    return found


def _both(ours: str, theirs: str) -> list[Stored]:
    return [Stored(f"{theirs}.{kind}", (f"{ours}.{kind}",)) for kind in ("weight", "bias")]
