from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.compositions import composition, tiny_en
from whisper_factory import schema
from whisper_factory.engine_spec import EngineSpec, Precision
from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import WINDOW_FRAMES


def test_a_composition_as_committed_passes() -> None:
    schema.check(tiny_en())


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("profile.max_input_len", 0, "profile.max_input_len=0: must be 100 to 3000"),
        ("profile.max_input_len", WINDOW_FRAMES + 2, "must be 100 to 3000"),
        ("profile.max_input_len", 751, "must be even"),
        ("profile.max_beam_width", 0, "profile.max_beam_width=0"),
        ("profile.max_new_tokens", 445, "must be 1 to 444"),
        ("profile.padding_strategy", "trimm", "did you mean 'trim'? choices: max, trim, nopad"),
        ("profile.end_anchor", 1501, "must be 0 to 1500"),
        ("profile.name", "../up", "may hold letters"),
        ("kv_cache.mode", "page", "did you mean 'paged'?"),
        ("precision.bits", 3, "choices: 0 (not quantised), 4, 8"),
        ("precision.group_size", 32, "precision.group_size=32 goes with 4 bits; choices: precision=int4_g32"),
        ("precision.keep", ["encoder.blocks.0.mlp.0"], "precision.keep names layers of a 4-bit engine"),
        ("precision.keep", ["encoder.block.0.mlp.0"], "no linear layer is named 'encoder.block.0.mlp.0'; choices: enc"),
        ("backend.name", "onnx", "unknown 'onnx'; choices: onnxruntime"),
        ("weights.path", "x.pt", "goes with weights=path"),
        ("device.memory_gb", -1.0, "device.memory_gb=-1.0: must be 0.001 to"),
        ("device.reserved_mb", -1.0, "device.reserved_mb=-1.0: must be 0 to"),
        ("model.dimensions.n_text_head", 0, "model.dimensions.n_text_head=0: must be 1 or more"),
        ("model.dimensions.n_vocab", 51900, "choices: 51864, 51865, 51866"),
        ("validation.bundled", "ful", "did you mean 'full'?"),
        ("stop_after", "converted", "did you mean 'convert'?"),
    ],
)
def test_what_cannot_be_built_is_refused(key: str, value: object, says: str) -> None:
    with pytest.raises(UserError) as caught:
        schema.check(tiny_en(**{key: value}))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(UserError, match=r"max_batch_size=0.*max_input_len=0"):
        schema.check(tiny_en(**{"profile.max_input_len": 0, "profile.max_batch_size": 0}))


def test_int4_inner_dimension_that_fits_no_block_is_refused() -> None:
    odd = {f"model.dimensions.n_{part}_{size}": number
           for part in ("audio", "text") for size, number in (("state", 392), ("head", 1))}
    with pytest.raises(UserError, match="block"):
        schema.settle(tiny_en(**{**odd, "precision.bits": 4, "precision.name": "int4"}))


def test_groups_and_kept_layers_reach_the_engine_by_name() -> None:
    made = composition("model=tiny.en", "precision=int4_g32", "precision.keep=[encoder.blocks.3.*,*.2.cross_attn.out]")
    schema.check(made)
    precision = made.engine_spec().precision
    assert (precision.group_size, len(precision.keep)) == (32, 6 + 1)
    assert precision.keep[-1] == "decoder.blocks.2.cross_attn.out"
    assert precision == Precision.from_dict(json.loads(json.dumps(precision.to_dict())))
    assert [precision.bits_of(name) for name in ("encoder.blocks.3.mlp.0", "encoder.blocks.2.mlp.0")] == [8, 4]


def test_what_an_older_engine_could_not_say_it_does_not_say_now() -> None:
    spec = composition("model=tiny.en", "precision=int4").engine_spec()
    assert spec.to_dict()["precision"] == {"name": "int4", "bits": 4, "dtype": "float16"}
    assert EngineSpec.from_dict(spec.to_dict()) == spec


def test_name_lists_the_five_axes() -> None:
    assert tiny_en().name == "tiny.en-int8-duplex_lowmem-paged-onnxruntime"


def test_spec_window_and_lengths() -> None:
    spec = tiny_en().engine_spec()
    assert spec.window_frames == 850  # 100 more than the longest clip
    assert spec.max_cross_len == 425 + 50
    assert spec.max_tokens == 4 + 64
    whole = replace(spec, profile=replace(spec.profile, max_input_len=3000))
    assert whole.max_cross_len == 1499 + 50  # a 3000-frame engine anchors its shorter windows
