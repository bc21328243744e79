"""Which GPUs share a layout, and what convert has to make for the packer."""

from __future__ import annotations

import pytest

from whisper_factory.backends.tensorrt_llm import versions
from whisper_factory.backends.tensorrt_llm.families import checkpoint_precision, family
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError

FLOAT32, FLOAT16 = Precision("float32", 0, "float32"), Precision("float16", 0, "float16")
INT8, INT4 = Precision("int8", 8, "float16"), Precision("int4", 4, "float16")


@pytest.mark.parametrize("version", ["0.11", "0.12", "0.15", "0.16", "1.3.0rc3"])
@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6", "8.7", "8.9"])
def test_sm80_is_the_same_everywhere(capability: str, version: str) -> None:
    assert family(capability, versions.parse(version)) == "sm80"


@pytest.mark.parametrize(("capability", "version", "expected"), [
    ("9.0", "0.11", None), ("9.0", "0.12", "sm90"), ("9.0", "0.15", "sm90"), ("9.0", "0.16", None),
    ("9.0", "1.0", None),
    ("10.0", "0.12", None), ("12.0", "1.0", None), ("7.0", "0.12", None), ("7.2", "0.12", None), ("8.10", "0.12", None),
])
def test_others(capability: str, version: str, expected: str | None) -> None:
    assert family(capability, versions.parse(version)) == expected


@pytest.mark.parametrize("capability", ["", "87", "sm_87", "8.7.1", "eight.7", "-8.7", "8.07", "08.7", " 8.7"])
def test_not_a_compute_capability(capability: str) -> None:
    with pytest.raises(UserError, match=r"as in 8\.7"):
        family(capability, versions.parse("0.12"))


@pytest.mark.parametrize("declared", [FLOAT16, INT8, INT4], ids=lambda precision: precision.name)
def test_the_canonical_checkpoint_is_float16_where_upstream_has_to_quantise(declared: Precision) -> None:
    assert checkpoint_precision(declared, "8.7", versions.parse("0.12")) == declared
    assert checkpoint_precision(declared, "9.0", versions.parse("0.15")) == declared
    assert checkpoint_precision(declared, "9.0", versions.parse("0.16")) == FLOAT16
    assert checkpoint_precision(declared, "10.0", versions.parse("1.0")) == FLOAT16


def test_float32_is_not_for_this_backend() -> None:
    with pytest.raises(UserError, match="choices: float16, int8, int4"):
        checkpoint_precision(FLOAT32, "8.7", versions.parse("0.12"))
