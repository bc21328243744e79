"""What a packed checkpoint stands for, read back from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.backends.tensorrt_llm.test_packing import FLOAT16, INT4, INT8, TINY, packed
from tests.real_weights import TINY_EN, packaged
from whisper_factory.backends.tensorrt_llm import unpack
from whisper_factory.backends.tensorrt_llm.sinusoids import sinusoids
from whisper_factory.backends.tensorrt_llm.stamp import FILES, describe
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.whisper import readers
from whisper_factory.whisper.checkpoint import Checkpoint
from whisper_factory.whisper.tensors import is_quantized, tensor_shapes

# Version and compute capability: each generation, each layout, and none.
TARGETS = [("0.12", "8.7"), ("0.12", "9.0"), ("0.15", "9.0"), ("0.17", "8.9"), ("1.3.0rc3", "8.6")]


@pytest.mark.parametrize(("version", "capability"), TARGETS)
@pytest.mark.parametrize("precision", [INT8, INT4], ids=lambda precision: precision.name)
def test_the_canonical_integers_come_back(tmp_path: Path, version: str, capability: str, precision: Precision) -> None:
    out = packed(TINY, tmp_path, version, capability, precision)
    canonical, found = Checkpoint.open(tmp_path / "canonical"), unpack.integers(out)
    assert set(found) == {name for name in TINY.tensors if is_quantized(name)}
    weights = unpack.read(out)
    for name, (q, scale) in found.items():
        stored = canonical.quantized(name)
        assert stored is not None
        np.testing.assert_array_equal(q, stored[0], strict=True)
        np.testing.assert_array_equal(scale, stored[1].astype(np.float16), strict=True)
        np.testing.assert_array_equal(weights.tensors[name], q * scale.astype(np.float32)[:, None], strict=True)


@pytest.mark.parametrize("precision", [INT8, INT4], ids=lambda precision: precision.name)
def test_tiny_en(tmp_path: Path, precision: Precision) -> None:
    out = packed(readers.read(packaged(TINY_EN).parent, "ctranslate2"), tmp_path, "0.12", "8.7", precision)
    canonical = Checkpoint.open(tmp_path / "canonical")
    for name, (q, scale) in unpack.integers(out).items():
        stored = canonical.quantized(name)
        assert stored is not None
        np.testing.assert_array_equal(q, stored[0], strict=True)
        np.testing.assert_array_equal(scale, stored[1].astype(np.float16), strict=True)


@pytest.mark.parametrize(("version", "capability"), [*TARGETS, ("0.16", "9.0")])
def test_everything_that_is_not_quantised(tmp_path: Path, version: str, capability: str) -> None:
    weights = unpack.read(packed(TINY, tmp_path, version, capability, FLOAT16))
    assert weights.dimensions == TINY.dimensions
    assert set(weights.tensors) == set(tensor_shapes(TINY.dimensions))
    readers.check(weights, TINY.dimensions, "tiny")
    for name, array in TINY.tensors.items():
        if name == "encoder.positional_embedding":
            np.testing.assert_array_equal(weights.tensors[name], sinusoids(*array.shape), strict=True)
        else:
            np.testing.assert_array_equal(weights.tensors[name], array, strict=True)
    with pytest.raises(KeyError):
        weights.tensors["lm_head.weight"]
    assert "encoder.blocks.0.attn.key.bias" not in weights.tensors
    assert not unpack.integers(tmp_path / "packed")


@pytest.mark.parametrize("precision", [INT8, INT4], ids=lambda precision: precision.name)
def test_what_trtllm_build_will_quantise_is_quantised_as_it_will(tmp_path: Path, precision: Precision) -> None:
    known = packed(TINY, tmp_path / "known", "0.12", "8.7", precision)
    unknown = packed(TINY, tmp_path / "unknown", "0.12", "10.0", precision, canonical=FLOAT16)
    one, two = unpack.read(known), unpack.read(unknown)
    assert set(one.tensors) == set(two.tensors)
    for name in one.tensors:
        np.testing.assert_array_equal(one.tensors[name], two.tensors[name], strict=True)
    assert set(unpack.integers(known)) == set(unpack.integers(unknown))


def test_damaged_files(tmp_path: Path) -> None:
    out = packed(TINY, tmp_path, "0.12", "8.7", INT8)
    tensors = out / "decoder" / "rank0.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    for read in (unpack.read, unpack.integers):
        with pytest.raises(UserError, match=r"decoder/rank0.safetensors' is not the file that stamp.json"):
            read(out)


@pytest.mark.parametrize(("file", "text", "said"), [
    ("encoder/config.json", "{}", "does not hold the configs of a Whisper model"),
    ("encoder/rank0.safetensors", "?", "not a safetensors file"),
])
def test_foreign_files_under_a_stamp_of_theirs(tmp_path: Path, file: str, text: str, said: str) -> None:
    out = packed(TINY, tmp_path, "0.12", "8.7", INT8)
    (out / file).write_text(text)
    restamp(out)
    with pytest.raises(UserError, match=said):
        unpack.read(out)


def test_tensors_of_another_generation(tmp_path: Path) -> None:
    out = packed(TINY, tmp_path / "first", "0.12", "8.7", INT8)
    other = packed(TINY, tmp_path / "other", "1.0", "8.7", INT8)
    (out / "encoder" / "rank0.safetensors").write_bytes((other / "encoder" / "rank0.safetensors").read_bytes())
    restamp(out)
    with pytest.raises(UserError, match=r"lacks .*encoder_layers\.0\.attention\.qkv\.weight.*; convert it again"):
        unpack.read(out)


def restamp(directory: Path) -> None:
    """Make the stamp say that the files are as they should be."""
    path = directory / "stamp.json"
    about = json.loads(path.read_text())
    about["files"] = {name: describe(directory / name) for name in FILES}
    path.write_text(json.dumps(about))
