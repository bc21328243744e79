"""Reads CTranslate2's model.bin of a Whisper model, unquantised.

Little-endian: u32 binary version; the spec's name; u32 spec revision; u32 count of variables, each its name,
u8 rank, u32 per dimension, u8 dtype, u32 size, the bytes; u32 count of aliases, each two names. A name is a
u16 length that counts a closing NUL, then the characters. CTranslate2 stacks what is multiplied together:
self-attention's linear_0 is query, key and value, cross-attention's linear_1 is key and value. Whisper's key
has no bias, so those rows of a stacked bias must be zero. Nothing is scaled or otherwise changed: a test holds
every tensor of tiny.en against OpenAI's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights

FILE = "model.bin"
VERSION, SPEC, REVISION = 6, "WhisperSpec", 3
DTYPES = ("<f4", "|i1", "<i2", "<i4", "<f2", "bfloat16")  # by CTranslate2's number

Variables = dict[str, NDArray[Any]]

# What a Whisper model says; a model that says otherwise would compute something else.
SETTINGS = {
    "decoder/alibi": 0, "decoder/pre_norm": 1, "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0, "decoder/activation": 3,
}


def read(path: Path) -> Weights:
    """Read a directory that holds model.bin; arrays are views of the mapped file.

    Raises:
        UserError: there is no such file, it is damaged, quantised, or not a Whisper model this can read.
    """
    file = path / FILE
    if not file.is_file():
        raise UserError(f"'{path}' holds no {FILE}; give the directory of a CTranslate2 model")
    try:
        variables, aliases = _parse(file)
    except (struct.error, ValueError, UnicodeDecodeError, OverflowError) as error:
        raise UserError(f"'{file}' is not a CTranslate2 model, or is cut short ({error}); get it again") from error
    _refuse_others(file, variables, aliases)
    try:
        tensors = dict(_tensors(variables))
        return Weights(_dimensions(variables), tensors)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"'{file}' is not a whole Whisper model ({error}); convert it again") from error


class _Cursor:
    """Takes numbers and names off a mapped file, one after the other."""

    def __init__(self, data: NDArray[np.uint8]):
        self.data, self.at = data, 0

    def number(self, code: str) -> int:
        size = struct.calcsize(code)
        (value,) = struct.unpack("<" + code, self.bytes(size).tobytes())
        return int(value)

    def name(self) -> str:
        return self.bytes(self.number("H")).tobytes().rstrip(b"\0").decode()

    def bytes(self, size: int) -> NDArray[np.uint8]:
        if self.at + size > self.data.size:
            raise ValueError(f"{size} bytes wanted at byte {self.at} of {self.data.size}")
        self.at += size
        return self.data[self.at - size : self.at]


def _parse(file: Path) -> tuple[Variables, dict[str, str]]:
    cursor = _Cursor(np.memmap(file, dtype=np.uint8, mode="r"))
    header = (cursor.number("I"), cursor.name(), cursor.number("I"))
    if header != (VERSION, SPEC, REVISION):
        version, spec, revision = header
        raise ValueError(f"binary version {version}, {spec[:40]!r} revision {revision}; this reads version {VERSION}, "
                         f"{SPEC} revision {REVISION}")
    variables: Variables = {}
    for _ in range(cursor.number("I")):
        name = cursor.name()
        shape = [cursor.number("I") for _ in range(cursor.number("B"))]
        dtype, size = cursor.number("B"), cursor.number("I")
        variables[name] = _array(cursor.bytes(size), dtype).reshape(shape)
    aliases = {cursor.name(): cursor.name() for _ in range(cursor.number("I"))}
    return variables, aliases


def _array(data: NDArray[np.uint8], dtype: int) -> NDArray[Any]:
    if dtype >= len(DTYPES):
        raise ValueError(f"unknown dtype {dtype}")
    if DTYPES[dtype] == "bfloat16":  # the upper half of a float32
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    array: NDArray[Any] = data.view(DTYPES[dtype])
    return array


def _refuse_others(file: Path, variables: Variables, aliases: dict[str, str]) -> None:
    """Refuse what would be read as something that it is not, naming what is wrong."""
    integers = [name for name, array in variables.items() if name.endswith("/weight") and array.dtype.kind != "f"]
    if integers:
        first, more = integers[0], len(integers) - 1
        raise UserError(f"'{file}' is quantised by CTranslate2 ({first} and {more} more are {variables[first].dtype}); "
                        "convert the original model with --quantization float16")
    other = [f"{name} is {variables[name].item()}" for name, value in SETTINGS.items()
             if name in variables and variables[name].item() != value]
    projection = aliases.get("decoder/projection/weight")
    if projection != "decoder/embeddings/weight":
        other.append("decoder/projection is not tied to decoder/embeddings")
    if other:
        raise UserError(f"'{file}' is not a plain Whisper model: {'; '.join(other)}")


def _dimensions(variables: Variables) -> Dimensions:
    vocabulary, text_state = variables["decoder/embeddings/weight"].shape
    audio_state, mels, _ = variables["encoder/conv1/weight"].shape
    return Dimensions(
        n_mels=mels,
        n_audio_ctx=variables["encoder/position_encodings/encodings"].shape[0],
        n_audio_state=audio_state,
        n_audio_head=int(variables["encoder/num_heads"].item()),
        n_audio_layer=_layers(variables, "encoder"),
        n_vocab=vocabulary,
        n_text_ctx=variables["decoder/position_encodings/encodings"].shape[0],
        n_text_state=text_state,
        n_text_head=int(variables["decoder/num_heads"].item()),
        n_text_layer=_layers(variables, "decoder"),
    )


def _layers(variables: Variables, stack: str) -> int:
    prefix = f"{stack}/layer_"
    return len({name.split("/")[1] for name in variables if name.startswith(prefix) and name[len(prefix)].isdigit()})


def _tensors(variables: Variables) -> Iterator[tuple[str, NDArray[Any]]]:
    for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
        yield f"encoder.{name}", variables[f"encoder/{name.replace('.', '/')}"]
    for stack in ("encoder", "decoder"):
        yield f"{stack}.positional_embedding", variables[f"{stack}/position_encodings/encodings"]
        for layer in range(_layers(variables, stack)):
            yield from _block(variables, f"{stack}/layer_{layer}", f"{stack}.blocks.{layer}", cross=stack == "decoder")
    yield "decoder.token_embedding.weight", variables["decoder/embeddings/weight"]
    yield from _norm(variables, "encoder/layer_norm", "encoder.ln_post")
    yield from _norm(variables, "decoder/layer_norm", "decoder.ln")


def _block(variables: Variables, source: str, target: str, cross: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    yield from _linear(variables, f"{source}/self_attention/linear_0", f"{target}.attn", "query", "key", "value")
    yield from _linear(variables, f"{source}/self_attention/linear_1", f"{target}.attn", "out")
    yield from _norm(variables, f"{source}/self_attention/layer_norm", f"{target}.attn_ln")
    if cross:
        yield from _linear(variables, f"{source}/attention/linear_0", f"{target}.cross_attn", "query")
        yield from _linear(variables, f"{source}/attention/linear_1", f"{target}.cross_attn", "key", "value")
        yield from _linear(variables, f"{source}/attention/linear_2", f"{target}.cross_attn", "out")
        yield from _norm(variables, f"{source}/attention/layer_norm", f"{target}.cross_attn_ln")
    yield from _linear(variables, f"{source}/ffn/linear_0", f"{target}.mlp", "0")
    yield from _linear(variables, f"{source}/ffn/linear_1", f"{target}.mlp", "2")
    yield from _norm(variables, f"{source}/ffn/layer_norm", f"{target}.mlp_ln")


def _linear(variables: Variables, source: str, target: str, *parts: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The parts whose rows are stacked in one linear; a key's bias is checked to be zero and dropped."""
    weight, bias = variables[f"{source}/weight"], variables[f"{source}/bias"]
    rows, rest = divmod(weight.shape[0], len(parts))
    if rest or bias.shape != weight.shape[:1]:
        raise ValueError(f"{source} has weight {list(weight.shape)} and bias {list(bias.shape)}")
    for index, part in enumerate(parts):
        mine = slice(index * rows, (index + 1) * rows)
        yield f"{target}.{part}.weight", weight[mine]
        if part != "key":
            yield f"{target}.{part}.bias", bias[mine]
        elif bias[mine].any():
            raise ValueError(f"{source} has a key bias, and Whisper has none")


def _norm(variables: Variables, source: str, target: str) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{target}.weight", variables[f"{source}/gamma"]
    yield f"{target}.bias", variables[f"{source}/beta"]
