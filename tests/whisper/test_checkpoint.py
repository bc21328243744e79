"""The canonical checkpoint: its bytes, what comes back, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from tests.real_weights import DIGESTS, TINY_EN, packaged
from tests.tiny_model import tiny_weights
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.quantization import groups
from whisper_factory.quantization.weight_only import pack_int4, quantize
from whisper_factory.whisper.checkpoint import Checkpoint, scale_name, write_checkpoint
from whisper_factory.whisper.readers import Weights, ctranslate2
from whisper_factory.whisper.tensors import is_quantized

TINY = tiny_weights(seed=3, n_audio_ctx=60, n_vocab=500)
FLOAT32, FLOAT16 = Precision("float32", 0, "float32"), Precision("float16", 0, "float16")
INT8, INT4 = Precision("int8", 8, "float16"), Precision("int4", 4, "float16")
GROUPED = Precision("int4_g32", 4, "float16", 32)
MIXED = Precision("int4_g128", 4, "float16", 128, ("encoder.blocks.0.mlp.0", "decoder.blocks.1.cross_attn.out"))
ALL = [FLOAT32, FLOAT16, INT8, INT4, GROUPED, MIXED]


def as_float32(weights: Weights) -> Weights:
    """The same model from a float32 source: values that float16 rounds back to the same."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, array in weights.tensors.items():
        exact = array.astype(np.float32)
        tensors[name] = exact * np.float32(1 + 2**-14)
        np.testing.assert_array_equal(tensors[name].astype(np.float16), array)
    return Weights(weights.dimensions, tensors)


def integers(name: str, array: NDArray[Any], precision: Precision) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """What the definition makes of a tensor: in groups, unless it is kept."""
    kept = name.removesuffix(".weight") in precision.keep
    if precision.group_size and not kept:
        return groups.quantize(array, precision.bits, precision.group_size)
    return quantize(array, 8 if kept else precision.bits)


def digest(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_what_is_quantised() -> None:
    names = [name for name in TINY.tensors if is_quantized(name)]
    assert len(names) == 2 * 6 + 2 * 10
    assert {name.split(".", 3)[3] for name in names} == {
        "attn.query.weight", "attn.key.weight", "attn.value.weight", "attn.out.weight", "mlp.0.weight", "mlp.2.weight",
        "cross_attn.query.weight", "cross_attn.key.weight", "cross_attn.value.weight", "cross_attn.out.weight",
    }


@pytest.mark.parametrize("precision", ALL, ids=lambda precision: precision.name)
def test_config_and_stored_tensors(tmp_path: Path, precision: Precision) -> None:
    write_checkpoint(tmp_path, "tiny.en", precision, TINY)
    text = (tmp_path / "config.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert json.loads(text)["format"] == 1
    stored = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    for name, array in TINY.tensors.items():
        if not (precision.bits and is_quantized(name)):
            assert stored.pop(name).tobytes() == array.astype(precision.dtype).tobytes()
            continue
        q, scale = integers(name, array, precision)
        bits = precision.bits_of(name.removesuffix(".weight"))
        packed: NDArray[Any] = q if bits == 8 else pack_int4(q)
        assert stored[name].dtype == (np.int8 if bits == 8 else np.uint8)
        assert scale.shape == (len(q), q.shape[1] // 32) if precision is GROUPED else True
        np.testing.assert_array_equal(stored.pop(name), packed)
        np.testing.assert_array_equal(stored.pop(scale_name(name)), scale, strict=True)
    assert not stored


@pytest.mark.parametrize("precision", ALL, ids=lambda precision: precision.name)
def test_opened_again(tmp_path: Path, precision: Precision) -> None:
    write_checkpoint(tmp_path, "tiny.en", precision, TINY)
    checkpoint = Checkpoint.open(tmp_path)
    assert (checkpoint.model, checkpoint.dimensions, checkpoint.precision) == ("tiny.en", TINY.dimensions, precision)
    for name, array in TINY.tensors.items():
        value, stored = checkpoint.tensor(name), checkpoint.quantized(name)
        assert value.shape == array.shape
        if stored is None:
            assert value.dtype == precision.dtype
            np.testing.assert_array_equal(value, array)
        else:
            q, scale = stored
            assert (str(q.dtype), q.shape, str(value.dtype)) == ("int8", array.shape, "float32")
            np.testing.assert_array_equal(q, integers(name, array, precision)[0])
            clipped = 8 * max(groups.RATIOS) - 7 if scale.ndim == 2 else 1  # steps by which the largest weight may be
            assert np.abs(value - array).max() <= clipped * scale.max()


@pytest.mark.parametrize("precision", [FLOAT16, INT8, INT4, GROUPED, MIXED], ids=lambda precision: precision.name)
def test_a_float32_source_gives_the_same_bytes(tmp_path: Path, precision: Precision) -> None:
    write_checkpoint(tmp_path / "one", "tiny.en", precision, TINY)
    write_checkpoint(tmp_path / "two", "tiny.en", precision, as_float32(TINY))
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_float32_keeps_a_float32_source(tmp_path: Path) -> None:
    source = as_float32(TINY)
    write_checkpoint(tmp_path, "tiny.en", FLOAT32, source)
    for name, array in source.tensors.items():
        np.testing.assert_array_equal(Checkpoint.open(tmp_path).tensor(name), array)


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16], ids=lambda precision: precision.name)
@pytest.mark.parametrize("source", [TINY, as_float32(TINY)], ids=["float16", "float32"])
def test_floats_need_not_be_written(tmp_path: Path, precision: Precision, source: Weights) -> None:
    write_checkpoint(tmp_path, "tiny.en", precision, source)
    written, unwritten = Checkpoint.open(tmp_path), Checkpoint.unwritten("tiny.en", precision, source)
    assert (unwritten.model, unwritten.dimensions, unwritten.precision) == ("tiny.en", TINY.dimensions, precision)
    assert set(unwritten.raw) == set(written.raw)
    assert len(unwritten.raw) == len(written.raw)
    for name in written.raw:
        np.testing.assert_array_equal(unwritten.tensor(name), written.tensor(name), strict=True)
        assert unwritten.quantized(name) is None


def test_what_cannot_be_written_cannot_be_had_either() -> None:
    name = "encoder.blocks.0.mlp.0.weight"
    for value, told in ((np.nan, f"tensor {name} holds NaN or infinity"), (1e6, "more than float16 can")):
        tensors = {**as_float32(TINY).tensors}
        tensors[name] = np.full_like(tensors[name], value)
        checkpoint = Checkpoint.unwritten("tiny.en", FLOAT16, Weights(TINY.dimensions, tensors))
        with pytest.raises(UserError, match=told):
            checkpoint.tensor(name)


SCRIPT = """
import sys
from pathlib import Path
from tests.real_weights import DIGESTS, TINY_EN, packaged
from tests.tiny_model import tiny_weights
from whisper_factory.engine_spec import Precision
from whisper_factory.whisper.checkpoint import write_checkpoint
precision = Precision("int8", 8, "float16")
write_checkpoint(Path(sys.argv[1]), "tiny.en", precision, tiny_weights(seed=3, n_audio_ctx=60, n_vocab=500))
"""


def test_the_same_bytes_from_other_processes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "here", "tiny.en", INT8, TINY)
    roots = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    for seed in ("1", "2"):
        (tmp_path / f"cwd{seed}").mkdir()
        subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / seed)], check=True, cwd=tmp_path / f"cwd{seed}",
                       env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": roots})
        assert digest(tmp_path / seed) == digest(tmp_path / "here")


@pytest.mark.parametrize("precision", [INT8, INT4], ids=lambda precision: precision.name)
def test_tiny_en_holds_tensorrt_llms_integers(tmp_path: Path, precision: Precision) -> None:
    weights = ctranslate2.read(packaged(TINY_EN).parent)
    write_checkpoint(tmp_path, "tiny.en", precision, weights)
    checkpoint = Checkpoint.open(tmp_path)
    for name, expected in DIGESTS[precision.name].items():
        prefix, parts, kind = name.rsplit(".", 2)
        rows = np.concatenate([checkpoint.raw[f"{prefix}.{part}.{kind}"] for part in parts.split("+")])
        kept = rows.astype(np.float16) if kind == "scale" else rows
        assert hashlib.sha256(kept.tobytes()).hexdigest()[:24] == expected, name


@pytest.mark.parametrize(("value", "precision", "said"), [
    (1e5, FLOAT16, r"mlp\.0\.weight holds 100000, more than float16 can \(65504\); use precision=float32"),
    (-1e5, INT8, r"mlp\.0\.weight holds 100000"),
    (np.nan, FLOAT32, r"mlp\.0\.weight holds NaN or infinity"),
    (np.inf, INT4, r"mlp\.0\.weight holds NaN or infinity"),
])
def test_values_that_cannot_be_kept(tmp_path: Path, value: float, precision: Precision, said: str) -> None:
    weights = as_float32(TINY)
    weights.tensors["encoder.blocks.1.mlp.0.weight"][3, 5] = value
    with pytest.raises(UserError, match=said):
        write_checkpoint(tmp_path, "tiny.en", precision, weights)


def test_the_config_says_no_more_than_there_is(tmp_path: Path) -> None:
    """Files of before there were groups are the same now."""
    told = {}
    for precision in (INT4, GROUPED, MIXED):
        write_checkpoint(tmp_path / precision.name, "tiny.en", precision, TINY)
        told[precision.name] = json.loads((tmp_path / precision.name / "config.json").read_text())["precision"]
    assert told["int4"] == {"name": "int4", "bits": 4, "dtype": "float16"}
    assert told["int4_g32"] == {"name": "int4_g32", "bits": 4, "dtype": "float16", "group_size": 32}
    assert told["int4_g128"] == {"name": "int4_g128", "bits": 4, "dtype": "float16", "group_size": 128,
                                 "keep": ["encoder.blocks.0.mlp.0", "decoder.blocks.1.cross_attn.out"]}


def test_layers_that_are_kept_are_int8s(tmp_path: Path) -> None:
    for precision in (INT8, MIXED):
        write_checkpoint(tmp_path / precision.name, "tiny.en", precision, TINY)
    mixed, whole = (Checkpoint.open(tmp_path / precision.name) for precision in (MIXED, INT8))
    for layer in MIXED.keep:
        for name in (f"{layer}.weight", f"{layer}.scale"):
            np.testing.assert_array_equal(mixed.raw[name], whole.raw[name], strict=True)


def test_directories_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a checkpoint directory"):
        Checkpoint.open(tmp_path)
    write_checkpoint(tmp_path, "tiny.en", INT8, TINY)
    config, tensors = tmp_path / "config.json", tmp_path / "model.safetensors"
    text, content = config.read_text(), tensors.read_bytes()
    for damaged, said in ((text.replace('"format": 1', '"format": 2'), "format 2, this version reads 1"),
                          (text.replace("int8", "int4").replace('"bits": 8', '"bits": 4'), r"mlp\.0\.weight"),
                          (text.replace('"bits": 8', '"bits": 0'), r"attn\.key\.scale"), ("{", "JSON")):
        config.write_text(damaged)
        with pytest.raises(UserError, match=said) as error:
            Checkpoint.open(tmp_path)
        assert "\n" not in str(error.value)
    config.write_text(text)
    tensors.write_bytes(content[:-1])
    with pytest.raises(UserError, match="cut short"):
        Checkpoint.open(tmp_path)
