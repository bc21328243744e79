"""The committed configuration: every member composes, and says what OpenAI says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compositions import composition
from whisper_factory import schema
from whisper_factory.complaints import members
from whisper_factory.job import configuration_directory

CONF = configuration_directory()
GROUPS = {path.name: members(CONF, path.name) for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"}


def test_the_groups_and_their_members() -> None:
    assert GROUPS["model"] == ["base", "base.en", "debug", "large-v3", "large-v3-turbo", "medium", "medium.en", "small",
                               "small.en", "tiny", "tiny.en"]
    assert GROUPS["precision"] == ["float16", "float32", "int4", "int4_auto", "int4_g128", "int4_g32", "int8"]
    assert GROUPS["profile"] == ["batch", "duplex_lowmem", "interactive", "ultra_low"]
    assert GROUPS["kv_cache"] == ["contiguous", "paged"]
    assert GROUPS["weights"] == ["auto", "huggingface", "openai", "package", "path"]
    assert GROUPS["validation"] == ["full", "none", "quick"]
    assert len(GROUPS["device"]) == 9


def test_the_defaults() -> None:
    made = composition()
    assert made.name == "small.en-int8-interactive-contiguous-onnxruntime"
    assert (made.weights.source, made.validation.name, made.device.name) == ("auto", "quick", "cpu")


@pytest.mark.parametrize("model", [model for model in GROUPS["model"] if model != "debug"])
def test_every_model_has_openais_url_digest_and_dimensions(model: str) -> None:
    import whisper

    made = composition(f"model={model}")
    assert made.model.url == whisper._MODELS[model]
    assert made.model.url.split("/")[-2] == made.model.sha256
    spec = made.engine_spec()
    assert spec.dimensions.is_multilingual != model.endswith(".en")
    assert spec.dimensions.head_size == 64
    schema.check(made)


@pytest.mark.parametrize(
    ("group", "member"), [(group, member) for group, found in GROUPS.items() for member in found if group != "model"]
)
def test_every_member_composes_and_passes_the_check(group: str, member: str) -> None:
    local = {"huggingface": ["weights.path=somewhere"], "path": ["weights.path=somewhere.pt"],
             "scale": ["precision=int4"], "gptq": ["precision=int4"]}
    schema.check(composition(f"{group}={member}", *local.get(member, [])))


def test_files_are_short() -> None:
    for path in Path(CONF).rglob("*.yaml"):
        assert 1 <= len(path.read_text(encoding="utf-8").splitlines()) <= 35, path
