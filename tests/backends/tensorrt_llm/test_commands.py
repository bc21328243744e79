"""The trtllm-build commands: upstream's table by version, the options its versions know, and the lengths."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.backends.tensorrt_llm.making import PRECISIONS, RECORDED, declared
from tests.compositions import composition
from whisper_factory import schema
from whisper_factory.backends.tensorrt_llm import commands, limits, versions
from whisper_factory.engine_spec import EngineSpec, KVCache, KVMode

FLAGS = json.loads(Path(versions.__file__).with_name("build_flags.json").read_text(encoding="utf-8"))
CAPABILITIES = ("8.7", "8.9", "9.0", "10.0")
PROFILES = ("interactive", "batch", "duplex_lowmem", "ultra_low")

ENCODER_012 = """--paged_kv_cache disable --moe_plugin disable --enable_xqa disable --max_batch_size 2
    --gemm_plugin disable --bert_attention_plugin float16 --remove_input_padding disable --max_input_len 1500"""
DECODER_012 = """--paged_kv_cache disable --moe_plugin disable --enable_xqa disable --max_beam_width 3
    --max_batch_size 2 --max_seq_len 68 --max_input_len 4 --max_encoder_input_len 1500 --gemm_plugin float16
    --bert_attention_plugin float16 --gpt_attention_plugin float16 --remove_input_padding disable"""
ENCODER_013 = """--moe_plugin disable --enable_xqa disable --max_batch_size 2 --gemm_plugin disable
    --bert_attention_plugin float16 --max_input_len 3000 --max_seq_len 3000"""
DECODER_013 = """--moe_plugin disable --enable_xqa disable --max_beam_width 3 --max_batch_size 2 --max_seq_len 68
    --max_input_len 4 --max_encoder_input_len 3000 --gemm_plugin float16 --bert_attention_plugin float16
    --gpt_attention_plugin float16"""


def pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


def built(spec: EngineSpec) -> dict[str, dict[str, str]]:
    """Options of both stages, without the directories."""
    made = commands.build_commands(spec, "in", "out")
    for stage, options in made.items():
        assert options[:2] == [("--checkpoint_dir", f"in/{stage}"), ("--output_dir", f"out/{stage}")]
        assert len(dict(options)) == len(options)
    return {stage: dict(options[2:]) for stage, options in made.items()}


@pytest.mark.parametrize("version", ["0.11.0", "0.12.0"])
def test_up_to_012(version: str) -> None:
    assert built(declared(version)) == {"encoder": pairs(ENCODER_012), "decoder": pairs(DECODER_012)}


@pytest.mark.parametrize("version", ["0.13.0", "0.14.0", "0.15.0"])
def test_013_to_015(version: str) -> None:
    paged = {"--kv_cache_type": "paged", "--tokens_per_block": "64"}
    assert built(declared(version, "paged")) == {
        "encoder": pairs(ENCODER_013), "decoder": pairs(DECODER_013) | paged}
    padded = {"--remove_input_padding": "disable"}
    assert built(declared(version, "contiguous")) == {
        "encoder": pairs(ENCODER_013) | padded,
        "decoder": pairs(DECODER_013) | padded | {"--kv_cache_type": "continuous"}}


@pytest.mark.parametrize("version", ["0.16.0", "0.17.0", "1.0.0", "1.3.0rc3"])
@pytest.mark.parametrize("kv_cache", ["paged", "contiguous"])
def test_from_016_without_xqa(version: str, kv_cache: str) -> None:
    before = built(declared("0.15.0", kv_cache))
    for options in before.values():
        del options["--enable_xqa"]
    assert built(declared(version, kv_cache)) == before


@cache
def composed(profile: str) -> EngineSpec:
    """A committed profile as the command line would declare it."""
    return composition(f"profile={profile}", "model=tiny.en", "backend=tensorrt_llm", "device=rtx_4090").engine_spec()


@pytest.mark.parametrize("version", RECORDED)
def test_every_option_is_one_that_the_version_knows(version: str) -> None:
    usable: tuple[KVMode, ...] = ("contiguous", "paged") if versions.parse(version).at_least(0, 13) else ("contiguous",)
    for profile, mode, precision, capability in itertools.product(PROFILES, usable, PRECISIONS, CAPABILITIES):
        spec = composed(profile)
        assert spec.target is not None
        spec = replace(spec, precision=PRECISIONS[precision], kv_cache=KVCache(mode, spec.kv_cache.tokens_per_page),
                       target=replace(spec.target, version=version, compute_capability=capability))
        check(version, limits.settle(spec))


def check(version: str, spec: EngineSpec) -> None:
    stages, release = built(spec), versions.parse(version)
    for options in stages.values():
        assert set(options) <= set(FLAGS[version])
        assert not {"--paged_kv_cache", "--kv_cache_type"} <= set(options)
        assert options["--max_batch_size"] == str(spec.profile.max_batch_size)
        assert "--max_seq_len" in options or not release.at_least(0, 13)
    encoder, decoder = stages["encoder"], stages["decoder"]
    assert encoder["--max_input_len"] == ("3000" if release.at_least(0, 13) else "1500")
    assert decoder["--max_encoder_input_len"] == encoder["--max_input_len"]
    assert decoder["--max_beam_width"] == str(spec.profile.max_beam_width)
    assert int(decoder["--max_seq_len"]) == int(decoder["--max_input_len"]) + spec.profile.max_new_tokens <= 448
    assert ("--tokens_per_block" in decoder) == (spec.kv_cache.mode == "paged")


def test_the_answer_ends_with_the_text_context() -> None:
    spec = declared(profile={"max_new_tokens": 447})
    assert built(spec)["decoder"]["--max_seq_len"] == "448"


def test_the_profiles_the_project_has_are_all_tried() -> None:
    folder = Path(schema.__file__).parent.parent / "conf" / "profile"
    assert {path.stem for path in folder.glob("*.yaml")} == set(PROFILES)


def test_an_option_that_a_version_does_not_know_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(release: versions.Release) -> tuple[frozenset[str], str]:
        return frozenset(FLAGS["0.12.0"]) - {"--moe_plugin", "--gemm_plugin"}, "0.12.0"

    monkeypatch.setattr(versions, "options", without)
    with pytest.raises(AssertionError, match=r"0\.12\.0 has no option --moe_plugin, --gemm_plugin"):
        commands.build_commands(declared(), "in", "out")


def test_spelt_for_a_shell_it_is_the_same_command() -> None:
    options: Any = [("--checkpoint_dir", "a folder/encoder"), ("--max_batch_size", "2")]
    text = commands.spelt(options)
    assert text.splitlines() == ["trtllm-build \\", "    --checkpoint_dir 'a folder/encoder' \\",
                                 "    --max_batch_size 2"]
    assert shlex.split(text.replace("\\\n", "")) == commands.words(options)
