"""CTranslate2's model.bin: tiny.en tensor by tensor against OpenAI's, and small files made here."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.real_weights import BASE, DIGESTS, TINY_EN, packaged, stacked
from tests.tiny_model import sinusoids, tiny_weights
from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.readers import Weights, check, ctranslate2

TINY = tiny_weights(seed=2)
TINY_EN_DIMENSIONS = Dimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
BASE_DIMENSIONS = Dimensions(80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6)


@pytest.fixture(scope="module")
def tiny_en() -> Weights:
    return ctranslate2.read(packaged(TINY_EN).parent)


def test_tiny_en_is_openais_tensor_by_tensor(tiny_en: Weights) -> None:
    check(tiny_en, TINY_EN_DIMENSIONS, "tiny.en")
    assert {array.dtype for array in tiny_en.tensors.values()} == {np.dtype(np.float16)}
    seen = {"encoder.positional_embedding"}
    for name, expected in DIGESTS["float16"].items():
        array = stacked(tiny_en.tensors, name) if "+" in name else tiny_en.tensors[name]
        assert hashlib.sha256(array.tobytes()).hexdigest()[:24] == expected, name
        prefix, parts, kind = ("." + name).rsplit(".", 2)
        seen |= {f"{prefix}.{part}.{kind}"[1:] for part in parts.split("+")}
    assert set(tiny_en.tensors) <= seen
    table = sinusoids(1500, 384)
    np.testing.assert_allclose(tiny_en.tensors["encoder.positional_embedding"], table, atol=2**-11)


def test_base_in_two_parts(tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as joined:
        for part in map(packaged, BASE):
            joined.write(part.read_bytes())
    check(ctranslate2.read(tmp_path), BASE_DIMENSIONS, "base")


Entries = dict[str, NDArray[Any]]
NUMBERS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}


def entries(weights: Weights = TINY) -> Entries:
    """The variables of a model.bin, by CTranslate2's names."""
    t, d = weights.tensors, weights.dimensions
    found: Entries = {
        "encoder/num_heads": np.int16(d.n_audio_head), "decoder/num_heads": np.int16(d.n_text_head),
        "decoder/activation": np.int8(3), "decoder/pre_norm": np.int8(1), "decoder/alibi": np.int8(0),
        "decoder/embeddings/weight": t["decoder.token_embedding.weight"],
    }

    def linear(target: str, source: str, *parts: str) -> None:
        for kind in ("weight", "bias"):
            found[f"{target}/{kind}"] = stacked(t, f"{source}.{'+'.join(parts)}.{kind}")

    def norm(target: str, source: str) -> None:
        found[f"{target}/gamma"], found[f"{target}/beta"] = t[f"{source}.weight"], t[f"{source}.bias"]

    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", "encoder", conv)
    norm("encoder/layer_norm", "encoder.ln_post")
    norm("decoder/layer_norm", "decoder.ln")
    for stack, layers in (("encoder", d.n_audio_layer), ("decoder", d.n_text_layer)):
        found[f"{stack}/position_encodings/encodings"] = t[f"{stack}.positional_embedding"]
        for i in range(layers):
            target, source = f"{stack}/layer_{i}", f"{stack}.blocks.{i}"
            linear(f"{target}/self_attention/linear_0", f"{source}.attn", "query", "key", "value")
            linear(f"{target}/self_attention/linear_1", f"{source}.attn", "out")
            norm(f"{target}/self_attention/layer_norm", f"{source}.attn_ln")
            linear(f"{target}/ffn/linear_0", f"{source}.mlp", "0")
            linear(f"{target}/ffn/linear_1", f"{source}.mlp", "2")
            norm(f"{target}/ffn/layer_norm", f"{source}.mlp_ln")
            if stack == "decoder":
                linear(f"{target}/attention/linear_0", f"{source}.cross_attn", "query")
                linear(f"{target}/attention/linear_1", f"{source}.cross_attn", "key", "value")
                linear(f"{target}/attention/linear_2", f"{source}.cross_attn", "out")
                norm(f"{target}/attention/layer_norm", f"{source}.cross_attn_ln")
    return found


def model_bin(variables: Entries, spec: str = "WhisperSpec", version: int = 6, revision: int = 3,
              tied: bool = True, bfloat16: str = "") -> bytes:
    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = [struct.pack("<I", version), name(spec), struct.pack("<II", revision, len(variables))]
    for key, array in variables.items():
        number = 5 if key == bfloat16 else NUMBERS[str(array.dtype)]
        out += [name(key), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        out += [struct.pack("<BI", number, array.nbytes), array.tobytes()]
    aliases = ["decoder/projection/weight", "decoder/embeddings/weight"] if tied else []
    out += [struct.pack("<I", len(aliases) // 2), *map(name, aliases)]
    return b"".join(out)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Weights]:
    def run(content: bytes) -> Weights:
        (tmp_path / "model.bin").write_bytes(content)
        return ctranslate2.read(tmp_path)

    return run


def test_round_trip(read: Callable[..., Weights]) -> None:
    weights = read(model_bin(entries()))
    check(weights, TINY.dimensions, "tiny.en")
    for name, array in TINY.tensors.items():
        np.testing.assert_array_equal(weights.tensors[name], array)


def test_float32_and_bfloat16(read: Callable[..., Weights]) -> None:
    variables = {name: array.astype(np.float32) if array.dtype == np.float16 else array
                 for name, array in entries().items()}
    weights = read(model_bin(variables))
    np.testing.assert_array_equal(weights.tensors["decoder.ln.bias"], TINY.tensors["decoder.ln.bias"])
    halves = variables["decoder/layer_norm/beta"].view(np.uint16)[1::2]  # a float32's upper half is its bfloat16
    variables["decoder/layer_norm/beta"] = halves
    weights = read(model_bin(variables, bfloat16="decoder/layer_norm/beta"))
    assert weights.tensors["decoder.ln.bias"].dtype == np.float32
    np.testing.assert_allclose(weights.tensors["decoder.ln.bias"], TINY.tensors["decoder.ln.bias"], rtol=2**-7)


def test_a_key_bias_is_refused(read: Callable[..., Weights]) -> None:
    variables = entries()
    variables["decoder/layer_1/attention/linear_1/bias"][0] = 0.5
    with pytest.raises(UserError, match="decoder/layer_1/attention/linear_1 has a key bias"):
        read(model_bin(variables))


def test_quantised_is_refused(read: Callable[..., Weights]) -> None:
    variables = entries()
    for name in [name for name in variables if "linear" in name and name.endswith("weight")]:
        variables[name] = variables[name].astype(np.int8)
    with pytest.raises(UserError, match=r"quantised by CTranslate2 \(.* and 21 more are int8\).*float16"):
        read(model_bin(variables))


@pytest.mark.parametrize(("how", "said"), [
    ({"spec": "TransformerSpec"}, "'TransformerSpec' revision 3; this reads version 6, WhisperSpec revision 3"),
    ({"version": 5}, "binary version 5"),
    ({"tied": False}, "projection is not tied"),
])
def test_other_models(read: Callable[..., Weights], how: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(model_bin(entries(), **how))


def test_other_settings(read: Callable[..., Weights]) -> None:
    with pytest.raises(UserError, match="not a plain Whisper model: decoder/activation is 0"):
        read(model_bin({**entries(), "decoder/activation": np.int8(0)}))


def test_incomplete(read: Callable[..., Weights]) -> None:
    variables = entries()
    del variables["encoder/layer_1/ffn/linear_0/bias"]
    with pytest.raises(UserError, match="encoder/layer_1/ffn/linear_0/bias"):
        read(model_bin(variables))


def test_truncated_anywhere(read: Callable[..., Weights]) -> None:
    whole = model_bin(entries())
    for size in (0, 3, 4, 10, 24, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        with pytest.raises(UserError, match="not a CTranslate2 model, or is cut short") as error:
            read(whole[:size])
        assert "\n" not in str(error.value)


def test_no_model_bin(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.bin"):
        ctranslate2.read(tmp_path)
