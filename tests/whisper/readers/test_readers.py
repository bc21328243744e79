"""What every reader shares: the table of tensors, and the check against a declared model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import whisper.model  # type: ignore[import-untyped]

from tests.tiny_model import tiny_weights
from whisper_factory.errors import UserError
from whisper_factory.whisper import readers
from whisper_factory.whisper.readers import Weights, check
from whisper_factory.whisper.tensors import tensor_shapes

TINY = tiny_weights()


@pytest.mark.parametrize("dims", [{}, {"n_text_layer": 1, "n_audio_state": 192, "n_audio_head": 3, "n_mels": 128}])
def test_the_table_is_openais_own(dims: dict[str, int]) -> None:
    dimensions = replace(TINY.dimensions, **dims)
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**asdict(dimensions)))
    assert tensor_shapes(dimensions) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_right_weights_pass() -> None:
    check(TINY, TINY.dimensions, "tiny.en")


def test_another_model_is_told_by_its_dimensions_alone() -> None:
    expected = replace(TINY.dimensions, n_audio_state=384, n_vocab=51865)
    with pytest.raises(UserError) as error:
        check(TINY, expected, "tiny")
    assert str(error.value) == (
        "these weights are not those of model 'tiny': n_audio_state is 128, model 'tiny' says 384; "
        "n_vocab is 51864, model 'tiny' says 51865"
    )


def test_every_problem_at_once() -> None:
    tensors = dict(TINY.tensors)
    del tensors["decoder.ln.bias"]
    tensors["decoder.blocks.0.attn.key.bias"] = np.zeros(128, np.float16)
    tensors["encoder.conv1.weight"] = tensors["encoder.conv1.weight"][..., None]
    tensors["encoder.conv1.bias"] = tensors["encoder.conv1.bias"].astype(np.float64)
    with pytest.raises(UserError) as error:
        check(Weights(TINY.dimensions, tensors), replace(TINY.dimensions, n_mels=128), "large-v3")
    message = str(error.value)
    assert "n_mels is 80, model 'large-v3' says 128" in message
    assert "decoder.ln.bias is missing" in message
    assert "decoder.blocks.0.attn.key.bias is not part of a Whisper model" in message
    assert "encoder.conv1.weight has shape [128, 80, 3, 1], not [128, 80, 3]" in message
    assert "encoder.conv1.bias is float64" in message
    assert message.count(";") == 4
    assert "\n" not in message


def test_unknown_kind_and_missing_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean 'openai'\?"):
        readers.read(tmp_path, "opennai")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no such file"):
        readers.read(tmp_path / "absent.pt", "openai")
