"""Combinations that cannot be built: one line each, before any work."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.backends.onnxruntime.making import make_spec
from tests.tiny_model import tiny_dimensions
from whisper_factory.backends import onnxruntime
from whisper_factory.backends.onnx_graph.limits import block_size
from whisper_factory.engine_spec import EngineSpec, KVCache, Precision
from whisper_factory.errors import UserError


def spec(dims: dict[str, Any] | None = None, **changes: Any) -> EngineSpec:
    return make_spec(tiny_dimensions(**(dims or {})), **changes)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "int4", "int4_g128", "int4_g32", "mixed"])
def test_what_can_be_built(precision: str) -> None:
    onnxruntime.check(spec(precision=precision))
    onnxruntime.check(spec(precision=precision, end_anchor=0, max_input_len=750, margin_frames=100, mode="paged"))
    onnxruntime.check(spec(precision=precision, mode="paged", page=3, pages=18))
    onnxruntime.check(spec(precision=precision, mode="paged", pages=0))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (spec({"n_audio_state": 120, "n_text_state": 120, "n_audio_head": 3, "n_text_head": 3}, precision="int4"),
         "inner dimension of 120 .* a multiple of 16"),
        (spec({"n_audio_head": 3}), "3 heads do not divide n_audio_state 128"),
        (spec({"n_text_head": 32}), "32 heads do not divide n_text_state 128 into sizes that are multiples of 8"),
        (spec({"n_audio_state": 256}), "n_audio_state 256 is not n_text_state 128"),
        (spec({"n_audio_ctx": 60}), "n_audio_ctx 60 is not 1500"),
        (spec(end_anchor=1501), r"end_anchor=1501 .* choices: 0 \(none\) to 1500"),
        (spec(end_anchor=-1), "end_anchor=-1"),
        (spec(max_input_len=751), "751 frames .* even max_input_len"),
        (spec(max_input_len=0), "0 frames"),
        (spec(max_beam_width=0), "1 or more"),
        (spec(mode="paged", page=0), "tokens_per_page=0"),
        (spec(mode="paged", pages=8), r"max_pages=8 cannot hold the beginnings of 9 seq.* 9 or more \(9 are enough"),
        (spec(mode="paged", page=3, pages=17), r"choices: 18 or more \(135 are enough for everything\), or null"),
        (spec(mode="paged", pages=-1), "max_pages=-1"),
        (spec(pages=9), "max_pages=9 goes with kv_cache=paged"),
        (replace(spec(), kv_cache=KVCache("pagde", 64)), "did you mean 'paged'"),  # type: ignore[arg-type]
        (replace(spec(), precision=Precision("int5", 5, "float16")), "no precision 'int5' of 5 bits.*int4"),
        (replace(spec(), precision=Precision("int4", 8, "float16")), "no precision 'int4' of 8 bits"),
        (replace(spec(), precision=Precision("int4", 4, "float16", 64)), "'int4' of 4 bits in groups of 64; "),
        (replace(spec(), precision=Precision("int4_g32", 4, "float16")), "no precision 'int4_g32' of 4 bits; "),
        (spec({"n_audio_state": 192, "n_text_state": 192}, precision="int4_g128"),
         "int4_g128: an inner dimension of 192 is not a multiple of 128; choices: precision=int4"),
    ],
)
def test_what_cannot(wrong: EngineSpec, words: str) -> None:
    with pytest.raises(UserError) as caught:
        onnxruntime.check(wrong)
    assert re.search(words, str(caught.value))
    assert "\n" not in str(caught.value)


def test_blocks() -> None:
    assert [block_size(n) for n in (384, 1536, 64, 96, 48)] == [128, 128, 64, 32, 16]
