from __future__ import annotations

from dataclasses import replace

import pytest

from tests.compositions import tiny_en
from whisper_factory import schema
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


def test_name_lists_the_five_axes() -> None:
    assert tiny_en().name == "tiny.en-int8-duplex_lowmem-paged-onnxruntime"


def test_spec_window_and_lengths() -> None:
    spec = tiny_en().engine_spec()
    assert spec.window_frames == 850  # 100 more than the longest clip
    assert spec.max_cross_len == 425 + 50
    assert spec.max_tokens == 4 + 64
    whole = replace(spec, profile=replace(spec.profile, max_input_len=3000))
    assert whole.max_cross_len == 1499 + 50  # a 3000-frame engine anchors its shorter windows
