"""What an int4 plan says that it will cost."""

from __future__ import annotations

import pytest

from tests.compositions import composition
from whisper_factory import plan
from whisper_factory.calibration import expectations


def notes(*overrides: str) -> str:
    made = composition("validation=none", *overrides)
    return "\n".join(plan.make(made, lambda step, key: False).notes)


@pytest.mark.parametrize("method", ["none", "gptq"])
def test_a_model_that_was_measured(method: str) -> None:
    said = notes("model=tiny.en", "precision=int4", f"calibration={method}")
    assert "expect of int4: a word error rate of 20.7 % with precision=float32, 69.5 % with calibration=none" in said
    assert f"{expectations.MEASURED['tiny.en'][method]:.1f} % with calibration={method}" in said


def test_what_was_not_measured() -> None:
    assert "int4 of tiny.en with calibration=scale was not measured" in notes("model=tiny.en", "precision=int4",
                                                                              "calibration=scale")


def test_other_precisions_say_nothing() -> None:
    assert "int4" not in notes("model=tiny.en", "precision=int8")
