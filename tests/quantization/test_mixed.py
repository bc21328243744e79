"""Which layers keep 8 bits: names, patterns, and what goes together."""

from __future__ import annotations

import pytest

from tests.tiny_model import tiny_dimensions
from whisper_factory.errors import UserError
from whisper_factory.quantization.mixed import kept, layers, together

SIZES = tiny_dimensions()


def test_layers_are_openais_linears() -> None:
    found = layers(SIZES)
    assert len(found) == 2 * 6 + 2 * 10
    assert found["encoder.blocks.0.mlp.0"] == (512, 128)
    assert found["decoder.blocks.1.cross_attn.out"] == (128, 128)


@pytest.mark.parametrize(("patterns", "names"), [
    ([], ()),
    (["encoder.blocks.0.mlp.2"], ("encoder.blocks.0.mlp.2",)),
    (["*.cross_attn.key"], ("decoder.blocks.0.cross_attn.key", "decoder.blocks.1.cross_attn.key")),
    (["decoder.blocks.1.mlp.?", "encoder.blocks.1.mlp.2", "decoder.blocks.1.mlp.2"],  # in the model's order, once
     ("encoder.blocks.1.mlp.2", "decoder.blocks.1.mlp.0", "decoder.blocks.1.mlp.2")),
    (["encoder.blocks.1.attn.key"],
     ("encoder.blocks.1.attn.query", "encoder.blocks.1.attn.key", "encoder.blocks.1.attn.value")),
    (["*"], tuple(layers(SIZES))),
])
def test_names_and_patterns(patterns: list[str], names: tuple[str, ...]) -> None:
    assert kept(patterns, SIZES) == names


def test_what_an_engine_multiplies_at_once_goes_together() -> None:
    three = tuple(f"decoder.blocks.0.attn.{part}" for part in ("query", "key", "value"))
    assert together(three[1]) == three
    assert together("decoder.blocks.0.attn.out") == ("decoder.blocks.0.attn.out",)
    assert together("decoder.blocks.0.cross_attn.key") == ("decoder.blocks.0.cross_attn.key",)


@pytest.mark.parametrize(("pattern", "said"), [
    ("encoder.blocks.0.mlp.1", r"no linear layer is named 'encoder.blocks.0.mlp.1'; choices: .*encoder.blocks.0.mlp.0"),
    ("encoder.blocks.2.*", "choices: .*encoder.blocks.*a pattern as"),
    ("encoder.layers.0.mlp.fc", "choices: encoder.blocks.0.mlp"),
    ("encoder.conv1", "choices: "),
    ("decoder.token_embedding", "choices: "),
    ("", "choices: "),
])
def test_a_name_that_there_is_not(pattern: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        kept(["*.mlp.0", pattern], SIZES)
    assert "\n" not in str(error.value)
