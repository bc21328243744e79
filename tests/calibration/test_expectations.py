"""What an int4 plan says that it will cost."""

from __future__ import annotations

import pytest

from tests.compositions import composition
from whisper_factory import plan
from whisper_factory.calibration import expectations


def notes(*overrides: str) -> str:
    made = composition("validation=none", *overrides)
    return "\n".join(plan.make(made, lambda step, key: False).notes)


@pytest.mark.parametrize(("precision", "chosen"), [
    ("int4", "calibration=none"), ("int4", "calibration=gptq"), ("int4_g32", "calibration=none"),
    ("int4_g32", "calibration=gptq"), ("int4_g128", "calibration=none"), ("int4_auto", "precision.max_wer_delta=1")])
def test_a_model_that_was_measured(precision: str, chosen: str) -> None:
    said = notes("model=tiny.en", f"precision={precision}", chosen)
    assert f"expect of {precision}: a word error rate of 20.5 % with precision=float32" in said
    assert f"{expectations.MEASURED['tiny.en'][precision][chosen]:.1f} % with {chosen}" in said


@pytest.mark.parametrize("overrides", [
    ["precision=int4", "calibration=scale"], ["precision=int4", "precision.keep=[encoder.blocks.0.mlp.2]"],
    ["precision=int4", "model=small.en"], ["precision=int4_auto", "precision.max_wer_delta=2"]])
def test_what_was_not_measured(overrides: list[str]) -> None:
    said = notes("model=tiny.en", *overrides)
    assert "was not measured" in said
    assert "expect of" not in said


def test_every_measured_rate_has_that_of_float32_beside_it_and_is_of_a_precision_that_is_told() -> None:
    assert set(expectations.MEASURED) <= set(expectations.FLOAT32)
    assert {name for rates in expectations.MEASURED.values() for name in rates} <= set(expectations.NAMES)


def test_other_precisions_say_nothing() -> None:
    assert "int4" not in notes("model=tiny.en", "precision=int8")
