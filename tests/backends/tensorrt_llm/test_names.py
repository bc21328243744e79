"""Upstream's names in each generation, against the recorded ones and against each other."""

from __future__ import annotations

import pytest

from tests.backends.tensorrt_llm.golden import GOLDEN
from whisper_factory.backends.tensorrt_llm import names
from whisper_factory.backends.tensorrt_llm.names import Part
from whisper_factory.backends.tensorrt_llm.versions import Generation
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tensors import tensor_shapes

TINY_EN = Dimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)
GENERATIONS: tuple[Generation, ...] = ("G1", "G2", "G3")


@pytest.mark.parametrize(("generation", "version"), [("G1", "0.12"), ("G3", "1.x")])
@pytest.mark.parametrize("part", names.PARTS)
def test_recorded(generation: Generation, version: str, part: Part) -> None:
    stored = names.stored(part, generation, TINY_EN)
    assert {tensor.name for tensor in stored} == GOLDEN[f"{version}/tiny.en-none-sm80/{part}"]["tensors"].keys()
    scales = {tensor.scale_name for tensor in stored if tensor.quantized}
    quantized = GOLDEN[f"{version}/tiny.en-int8-sm80/{part}"]["tensors"]
    assert scales == {name for name in quantized if name.endswith("per_channel_scale")}
    assert {tensor.name for tensor in stored if tensor.quantized} == {
        name for name, (dtype, _, _) in quantized.items() if dtype == "int8"}


def test_g2_is_g1_but_for_the_encoders_positions() -> None:
    for part in names.PARTS:
        first, second = ({tensor.name: tensor.sources for tensor in names.stored(part, generation, TINY_EN)}
                         for generation in ("G1", "G2"))
        renamed = first.keys() ^ second.keys()
        assert renamed == ({"positional_embedding", "position_embedding.weight"} if part == "encoder" else set())
        assert all(first[name] == second[name] for name in first.keys() & second.keys())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_tensor_of_the_model_is_there_once(generation: Generation) -> None:
    stored = [tensor for part in names.PARTS for tensor in names.stored(part, generation, TINY_EN)]
    sources = [source for tensor in stored if not tensor.is_copy for source in tensor.sources if source]
    assert sorted(sources) == sorted(tensor_shapes(TINY_EN))
    assert [tensor.sources for tensor in stored if tensor.is_copy] == [("decoder.token_embedding.weight",)]
    for part in names.PARTS:
        own = [tensor.name for tensor in names.stored(part, generation, TINY_EN)]
        assert len(own) == len(set(own))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_is_special(generation: Generation) -> None:
    stored = [tensor for part in names.PARTS for tensor in names.stored(part, generation, TINY_EN)]
    assert {tensor.sources[0] for tensor in stored if tensor.has_trailing_axis} == {
        "encoder.conv1.weight", "encoder.conv2.weight"}
    assert [tensor.sources for tensor in stored if tensor.is_sinusoids] == [("encoder.positional_embedding",)]
    assert sum(tensor.quantized for tensor in stored) == 4 * 4 + 4 * 6
    without_key = [tensor.name for tensor in stored if None in tensor.sources]
    assert len(without_key) == 3 * 4
    assert all(name.endswith("attention.qkv.bias") for name in without_key)
