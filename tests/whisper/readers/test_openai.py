"""OpenAI's .pt files: good, damaged and hostile ones, all really made."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_model import tiny_weights
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.whisper.readers import check, openai

TINY = tiny_weights()


def checkpoint(dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """A checkpoint as OpenAI publishes them."""
    state = {name: torch.from_numpy(array).to(dtype) for name, array in TINY.tensors.items()}
    return {"dims": asdict(TINY.dimensions), "model_state_dict": state}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def run(content: Any, **how: Any) -> Path:
        torch.save(content, tmp_path / "model.pt", **how)
        return tmp_path / "model.pt"

    return run


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_round_trip(save: Callable[..., Path], zipped: bool) -> None:
    weights = openai.read(save(checkpoint(), _use_new_zipfile_serialization=zipped))
    check(weights, TINY.dimensions, "tiny.en")
    for name, array in TINY.tensors.items():
        assert weights.tensors[name].dtype == np.float16
        np.testing.assert_array_equal(weights.tensors[name], array)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_floats_arrive_as_float32(save: Callable[..., Path], dtype: torch.dtype) -> None:
    saved = checkpoint(dtype)
    weights = openai.read(save(saved))
    check(weights, TINY.dimensions, "tiny.en")
    for name, tensor in saved["model_state_dict"].items():
        assert weights.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(weights.tensors[name], tensor.float().numpy())


def test_extras_are_left_out(save: Callable[..., Path]) -> None:
    saved = checkpoint()
    saved["model_state_dict"]["decoder.mask"] = torch.zeros(448, 448)
    saved["model_state_dict"]["alignment_heads"] = torch.zeros(2, 2, dtype=torch.bool)
    check(openai.read(save(saved)), TINY.dimensions, "tiny.en")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.999])
def test_truncated(save: Callable[..., Path], zipped: bool, kept: float) -> None:
    path = save(checkpoint(), _use_new_zipfile_serialization=zipped)
    size = path.stat().st_size
    os.truncate(path, kept if isinstance(kept, int) else int(size * kept))
    with pytest.raises(UserError, match=r"model\.pt' is not a PyTorch checkpoint, or is cut short") as error:
        openai.read(path)
    assert "\n" not in str(error.value)


class Payload:
    """Runs a shell command when it is unpickled by anything less careful."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle", "among weights"])
def test_malicious_pickle_is_refused_by_name(save: Callable[..., Path], tmp_path: Path, how: str) -> None:
    witness = tmp_path / "ran"
    if how == "plain pickle":
        path = tmp_path / "model.pt"
        path.write_bytes(pickle.dumps(Payload(witness)))
    elif how == "among weights":
        path = save({**checkpoint(), "extra": Payload(witness)})
    else:
        path = save(Payload(witness), _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UserError, match=r"refused: its pickle asks for posix\.system") as error:
        openai.read(path)
    assert "\n" not in str(error.value)
    assert not witness.exists()


def test_the_payload_is_a_real_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [
    b"a text file\n" * 100, b"PK\x03\x04 no zip", b"\x80\x02}q\x00.", b"\x00" * 1000,
], ids=["text", "half a zip", "an empty dictionary", "zeros"])
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError) as error:
        openai.read(tmp_path / "model.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [
    [1, 2], {"dims": {}, "model_state_dict": {}}, {"model_state_dict": {}},
    {"dims": asdict(TINY.dimensions), "model_state_dict": {"encoder.conv1.weight": 3}},
    {"dims": asdict(TINY.dimensions), "model_state_dict": [torch.zeros(2)]},
    {"dims": asdict(TINY.dimensions), "model_state_dict": {"encoder.conv1.weight": torch.eye(2).to_sparse()}},
], ids=["list", "no dims", "dims missing", "not a tensor", "not a dictionary", "sparse"])
def test_another_kind_of_checkpoint(save: Callable[..., Path], content: Any) -> None:
    with pytest.raises(UserError, match="not an OpenAI Whisper checkpoint") as error:
        openai.read(save(content))
    assert "\n" not in str(error.value)


def test_without_torch(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(checkpoint())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentFault, match=r"whisper-factory\[openai\]"):
        openai.read(path)
