"""Which versions are known, what is said of the others, and the recorded options."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from whisper_factory.backends.tensorrt_llm import versions
from whisper_factory.errors import UserError


@pytest.mark.parametrize(("text", "said", "generation"), [
    ("0.11.0", "0.11.0", "G1"), ("0.12", "0.12.0", "G1"), ("0.12.0.dev2024080600", "0.12.0.dev2024080600", "G1"),
    ("0.12.0+jetson", "0.12.0", "G1"), (" 0.14.0 ", "0.14.0", "G1"), ("0.15.0", "0.15.0", "G2"),
    ("0.17.0.post1", "0.17.0.post1", "G2"), ("1.0", "1.0.0", "G3"), ("1.3.0rc3", "1.3.0rc3", "G3"),
    ("v1.2.0", "1.2.0", "G3"),
])
def test_known(text: str, said: str, generation: str) -> None:
    release = versions.parse(text)
    assert (release.text, release.generation) == (said, generation)


@pytest.mark.parametrize("text", ["0.9.0", "0.10", "0.18.0", "0.19.0", "0.20.0", "0.21.0rc1", "2.0", "0.20"])
def test_unknown(text: str) -> None:
    with pytest.raises(UserError, match="no checkpoint generation") as caught:
        versions.parse(text)
    assert text in str(caught.value)
    assert versions.KNOWN in str(caught.value)
    assert "read as the number" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "twelve", "0", "0.12.x", "0.12.0; rm", "-0.12", "0.12\n1", "\u0661.0"])
def test_garbage(text: str) -> None:
    with pytest.raises(UserError, match="is not a version"):
        versions.parse(text)


def test_a_number_that_lost_its_zero() -> None:
    with pytest.raises(UserError, match=r"a bare 0\.20 is read as the number 0\.2: write 0\.20\.0"):
        versions.parse("0.2")


def test_at_least() -> None:
    release = versions.parse("0.15.0.dev2024")
    assert release.at_least(0, 15)
    assert release.at_least(0, 12)
    assert not release.at_least(0, 16)
    assert not release.at_least(1, 0)
    assert versions.parse("1.0").at_least(0, 17)


@pytest.mark.parametrize(("text", "of"), [
    ("0.11", "0.11.0"), ("0.12.0.dev2024080600", "0.12.0"), ("0.17.0.post1", "0.17.0"), ("1.0", "1.3.0rc3"),
    ("1.3.0", "1.3.0rc3"), ("1.10.0", "1.3.0rc3"),
])
def test_options_are_those_of_the_nearest_recorded_version(text: str, of: str) -> None:
    names, recorded = versions.options(versions.parse(text))
    assert recorded == of
    assert {"--checkpoint_dir", "--output_dir", "--max_batch_size", "--gemm_plugin"} <= names
    assert ("--enable_xqa" in names) == (of in ("0.11.0", "0.12.0"))
    assert ("--kv_cache_type" in names) == (of not in ("0.11.0", "0.12.0"))


def test_same() -> None:
    assert versions.same("0.12", "0.12.0")
    assert versions.same("0.12.0+jetson", "0.12.0")
    assert versions.same("0.18.0", "0.18.0")
    assert versions.same("odd", "odd")
    assert not versions.same("0.12.0", "0.12.1")
    assert not versions.same("1.3.0rc3", "1.3.0")
    assert not versions.same("0.12.0.dev2024080600", "0.12.0")


def test_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> str:
        assert name == "tensorrt_llm"
        return "0.12.0+jetson"

    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", found)
    assert versions.installed() == "0.12.0"
    monkeypatch.setattr(metadata, "version", nothing)
    assert versions.installed() is None


def test_planning_imports_no_numpy() -> None:
    imports = "whisper_factory.backends.tensorrt_llm.versions, whisper_factory.backends.tensorrt_llm.families"
    program = f"import sys, {imports}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
