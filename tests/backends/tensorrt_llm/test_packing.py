"""Packed checkpoints: tiny.en as upstream's own converter makes it, and what follows from the same tables."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray

from tests.backends.tensorrt_llm.golden import GOLDEN
from tests.real_weights import BASE, TINY_EN, packaged
from tests.tiny_model import tiny_weights
from tests.whisper.readers.test_huggingface import config as hugging_face_config
from tests.whisper.readers.test_huggingface import state as hugging_face_state
from whisper_factory.backends.tensorrt_llm import names, packing, versions
from whisper_factory.backends.tensorrt_llm.sinusoids import sinusoids
from whisper_factory.backends.tensorrt_llm.stamp import FILES, read_stamp, verify
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.whisper import readers
from whisper_factory.whisper.checkpoint import write_checkpoint
from whisper_factory.whisper.readers import Weights

FLOAT16, FLOAT32 = Precision("float16", 0, "float16"), Precision("float32", 0, "float32")
INT8, INT4 = Precision("int8", 8, "float16"), Precision("int4", 4, "float16")
PRECISIONS = {"none": FLOAT16, "int8": INT8, "int4": INT4}
CAPABILITIES = {"sm80": "8.7", "sm90": "9.0"}
RECORDED = sorted({key.rsplit("/", 1)[0] for key in GOLDEN})
TINY = tiny_weights(seed=5)


def silent(line: str) -> None:
    """Nobody listens."""


def packed(weights: Weights, directory: Path, version: str, capability: str, declared: Precision,
           canonical: Precision | None = None) -> Path:
    """A packed checkpoint by way of the canonical one, in the directory `packed`."""
    write_checkpoint(directory / "canonical", "a model", canonical or declared, weights)
    out = directory / "packed"
    packing.write(directory / "canonical", out, versions.parse(version), capability, declared, silent)
    return out


def loaded(directory: Path, part: str) -> dict[str, NDArray[Any]]:
    """The tensors as the safetensors library reads them, which is what upstream uses."""
    tensors: dict[str, NDArray[Any]] = safetensors.numpy.load_file(directory / part / "rank0.safetensors")
    return tensors


@pytest.fixture(scope="module")
def tiny_en(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canonical checkpoints of the real tiny.en, by precision."""
    directory = tmp_path_factory.mktemp("tiny.en")
    weights = readers.read(packaged(TINY_EN).parent, "ctranslate2")
    for name, precision in PRECISIONS.items():
        write_checkpoint(directory / name, "tiny.en", precision, weights)
    return directory


@pytest.mark.parametrize("recorded", RECORDED)
def test_tiny_en_as_upstream_makes_it(tiny_en: Path, tmp_path: Path, recorded: str) -> None:
    version, name = recorded.split("/")
    _, quantized, family = name.rsplit("-", 2)
    release = versions.parse({"1.x": "1.3.0rc3"}.get(version, version))
    packing.write(tiny_en / quantized, tmp_path, release, CAPABILITIES[family], PRECISIONS[quantized], silent)
    for part in names.PARTS:
        expected = GOLDEN[f"{recorded}/{part}"]
        assert json.loads((tmp_path / part / "config.json").read_text()) == expected["config"]
        tensors = loaded(tmp_path, part)
        found = {name: [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()[:24]]
                 for name, array in tensors.items()}
        if part == "encoder":  # some last bits depend on the math library: see test_sinusoids.py
            table = next(name for name, (dtype, _, _) in expected["tensors"].items() if dtype == "float32")
            np.testing.assert_array_equal(tensors[table], sinusoids(1500, 384))
            found[table][2] = expected["tensors"][table][2]
        assert found == expected["tensors"]


def test_base_in_four_bits_for_g2(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"".join(packaged(part).read_bytes() for part in BASE))
    out = packed(readers.read(tmp_path, "ctranslate2"), tmp_path, "0.15.0", "8.9", INT4)
    encoder, decoder = loaded(out, "encoder"), loaded(out, "decoder")
    assert len(encoder) == 1 + 4 + 2 + 6 * 16
    assert len(decoder) == 3 + 2 + 6 * 24
    assert encoder["position_embedding.weight"].dtype == np.float32
    assert encoder["conv2.weight"].shape == (512, 512, 3, 1)
    assert encoder["encoder_layers.5.attention.qkv.weight"].shape == (512, 3 * 512 // 2)
    assert decoder["decoder_layers.5.mlp.proj.weight"].shape == (2048, 256)
    assert decoder["decoder_layers.0.cross_attention.qkv.per_channel_scale"].shape == (1536,)
    assert decoder["lm_head.weight"].tobytes() == decoder["embedding.vocab_embedding.weight"].tobytes()
    assert decoder["lm_head.weight"].shape == (51865, 512)
    configs = [json.loads((out / part / "config.json").read_text()) for part in names.PARTS]
    assert configs[0]["max_position_embeddings"] == 1500
    assert "n_audio_ctx" not in configs[0]
    assert [config["quantization"]["quant_algo"] for config in configs] == ["W4A16", "W4A16"]
    assert read_stamp(out)["generation"] == "G2"


@pytest.mark.parametrize("version", ["0.13.0", "0.17.0", "1.2.0"])
@pytest.mark.parametrize("precision", [INT8, INT4], ids=lambda precision: precision.name)
def test_other_versions_hold_the_same_under_their_names(tmp_path: Path, version: str, precision: Precision) -> None:
    first = packed(TINY, tmp_path / "first", "0.12", "8.7", precision)
    other = packed(TINY, tmp_path / "other", version, "8.7", precision)
    for part in names.PARTS:
        ours = [names.stored(part, versions.parse(text).generation, TINY.dimensions) for text in ("0.12", version)]
        one, two = loaded(first, part), loaded(other, part)
        assert len(one) == len(two)
        for before, after in zip(*ours, strict=True):
            assert before.sources == after.sources
            np.testing.assert_array_equal(one[before.name], two[after.name], strict=True)


def test_the_stamp(tmp_path: Path) -> None:
    out = packed(TINY, tmp_path, "0.12.0+jetson", "8.7", INT8)
    about = read_stamp(out)
    verify(out, about)
    files, by = about.pop("files"), about.pop("packed_by")
    assert about == {"format": 1, "generation": "G1", "layout": "sm80", "version": "0.12.0",
                     "compute_capability": "8.7", "precision": "int8", "quant_algo": "W8A16"}
    assert by.keys() == {"whisper_factory", "numpy"}
    assert sorted(files) == sorted(FILES)
    everything = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert everything == {*FILES, "stamp.json"}


def test_the_same_bytes_again(tmp_path: Path) -> None:
    one, two = (packed(TINY, tmp_path / name, "0.12", "8.7", INT4) for name in ("one", "two"))
    for name in (*FILES, "stamp.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize(("version", "capability"), [("0.16.0", "9.0"), ("0.12.0", "10.0")])
def test_unknown_layouts_are_left_to_trtllm_build(tmp_path: Path, version: str, capability: str) -> None:
    out = packed(TINY, tmp_path / "int8", version, capability, INT8, canonical=FLOAT16)
    plain = packed(TINY, tmp_path / "float16", version, capability, FLOAT16)
    for part in names.PARTS:
        assert (out / part / "rank0.safetensors").read_bytes() == (plain / part / "rank0.safetensors").read_bytes()
        config = json.loads((out / part / "config.json").read_text())
        assert config.pop("quantization") == {"quant_algo": "W8A16"}
        other = json.loads((plain / part / "config.json").read_text())
        assert other.pop("quantization") == {"quant_algo": None}
        assert other == config
    about = read_stamp(out)
    assert (about["layout"], about["quant_algo"], about["precision"]) == ("none", "W8A16", "int8")
    assert read_stamp(plain)["layout"] == "none"


def test_a_float32_fine_tune_comes_out_in_float16(tmp_path: Path) -> None:
    source = tmp_path / "fine-tune"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({**hugging_face_config(), "torch_dtype": "float32"}))
    state = {name: tensor * (1 + 2**-14) for name, tensor in hugging_face_state(dtype=torch.float32).items()}
    safetensors.torch.save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    weights = readers.read(source, "huggingface")
    assert {str(array.dtype) for array in weights.tensors.values()} == {"float32"}
    for precision in (FLOAT16, INT8):
        out = packed(weights, tmp_path / precision.name, "0.12", "8.7", precision)
        for part in names.PARTS:
            dtypes = {name: str(array.dtype) for name, array in loaded(out, part).items()}
            assert dtypes.pop("positional_embedding", "float32") == "float32"
            assert set(dtypes.values()) == ({"float16", "int8"} if precision.bits else {"float16"})
    decoder = loaded(tmp_path / "float16" / "packed", "decoder")
    np.testing.assert_array_equal(decoder["decoder_layers.0.mlp.fc.weight"],
                                  weights.tensors["decoder.blocks.0.mlp.0.weight"].astype(np.float16), strict=True)


@pytest.mark.parametrize(("canonical", "declared", "capability"), [
    (INT8, INT4, "8.7"), (FLOAT16, INT8, "8.7"), (INT8, INT8, "10.0"), (FLOAT32, FLOAT16, "8.7"),
])
def test_checkpoints_of_another_precision(tmp_path: Path, canonical: Precision, declared: Precision,
                                          capability: str) -> None:
    with pytest.raises(UserError, match=f"is {canonical.name}; a {declared.name} engine for compute capability "):
        packed(TINY, tmp_path, "0.12", capability, declared, canonical=canonical)


def test_matrices_that_do_not_fit(tmp_path: Path) -> None:
    narrow = tiny_weights(n_audio_state=96, n_audio_ctx=60, n_vocab=500)
    with pytest.raises(UserError, match=r"does not fit the sm80 layout of 8-bit integers"):
        packed(narrow, tmp_path, "0.12", "8.7", INT8)
