"""In which order a plan's steps are made: with steps that only note what they do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.compositions import composition
from whisper_factory import making, plan
from whisper_factory.errors import UserError
from whisper_factory.plan import Plan
from whisper_factory.planned_steps import PlannedStep
from whisper_factory.steps import STEPS, reference, validate
from whisper_factory.steps.context import Context
from whisper_factory.store import Store

QUICK = ("fetch", "convert", "build", "reference", "validate")
BESIDE = ["fetch", "reference", "convert", "build", "reference heard", "validate"]


class Begun:
    """Stands for an audition."""

    def __init__(self, step: PlannedStep, engine: Path, scratch: Path) -> None:
        assert step.name == "validate"
        assert scratch.parent.is_dir()
        assert not scratch.exists()
        assert (engine / "build.txt").is_file()
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Started:
    """Stands for what hears the reference."""

    def __init__(self, step: PlannedStep) -> None:
        assert step.name == "reference"
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Noting:
    """Stands for every step. The reference does something meanwhile, as the real one does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> None:
        self.failing = failing
        self.did: list[str] = []
        self.auditions: list[Any] = []
        self.ears: list[Started] = []  # started before the reference is made
        self.given: list[Any] = []  # of them, to the reference
        monkeypatch.setattr(validate, "begin", Begun)
        monkeypatch.setattr(reference, "begin", self.start)
        for module in STEPS.values():
            monkeypatch.setattr(module, "run", self.run)

    def start(self, step: PlannedStep) -> Started:
        assert self.did == [], "before weights are fetched"
        self.ears.append(Started(step))
        return self.ears[-1]

    def run(self, step: PlannedStep, inputs: dict[str, Path], out: Path, context: Context) -> None:
        self.did.append(step.name)
        assert set(inputs) == set(step.inputs)
        assert all((path / f"{name}.txt").is_file() for name, path in inputs.items())
        if step.name == self.failing:
            raise UserError("as it was told")
        if step.name == "reference":
            self.given.append(context.ears)
            context.meanwhile()
            self.did.append("reference heard")
        if step.name == "validate":
            self.auditions.append(context.audition)
        (out / f"{step.name}.txt").write_text(step.name)


def made(*overrides: str) -> Plan:
    return plan.make(composition(*overrides), lambda step, key: False)


def make(planned: Plan, store: Path) -> making.Run:
    with making.Run(planned, Store(store)) as run:
        for step in run.order():
            run.ensure(step)
    return run


def test_a_quick_engine_is_made_while_the_reference_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, planned = Noting(monkeypatch), made("model=tiny.en", "profile=duplex_lowmem")
    run = make(planned, tmp_path)
    assert steps.did == BESIDE
    assert set(run.finished) == set(QUICK)
    (begun,) = steps.auditions
    assert isinstance(begun, Begun), "validation goes on with what was begun meanwhile"
    assert begun.closed
    assert steps.given == steps.ears, "what was started while weights were fetched hears the reference"
    assert [ears.closed for ears in steps.ears] == [1]
    make(planned, tmp_path)
    assert steps.did == BESIDE, "nothing is made twice"
    assert [step.name for step in making.Run(planned, Store(tmp_path)).order()] == list(QUICK)


@pytest.mark.parametrize("overrides", [
    ("precision=int4", "calibration=gptq"), ("backend=tensorrt_llm", "device=jetson_orin_nano_8gb"),
    ("validation=none",),
])
def test_else_they_are_made_as_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    """What takes minutes and all cores, or is told elsewhere, is not made beside anything."""
    steps, planned = Noting(monkeypatch), made("model=tiny.en", *overrides)
    make(planned, tmp_path)
    assert [name for name in steps.did if name != "reference heard"] == [step.name for step in planned.steps]
    assert steps.auditions in ([], [None])
    assert steps.ears == []


def test_weights_that_cannot_be_fetched_end_what_was_to_hear_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, planned = Noting(monkeypatch, "fetch"), made("model=tiny.en", "profile=duplex_lowmem")
    with pytest.raises(UserError, match=r"^as it was told$"):
        make(planned, tmp_path)
    assert [ears.closed for ears in steps.ears] == [1]
    assert steps.given == []


def test_with_weights_at_hand_the_reference_starts_what_hears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, planned = Noting(monkeypatch), made("model=tiny.en", "profile=duplex_lowmem")
    with making.Run(planned, Store(tmp_path)) as run:
        run.ensure(planned.steps[0])
    assert [ears.closed for ears in steps.ears] == [1]
    make(planned, tmp_path)
    assert len(steps.ears) == 1
    assert steps.given == [None]


@pytest.mark.parametrize("failing", ["convert", "build"])
def test_an_engine_that_cannot_be_made_ends_the_reference_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    steps, planned = Noting(monkeypatch, failing), made("model=tiny.en", "profile=duplex_lowmem")
    with pytest.raises(UserError, match=r"^as it was told$"):
        make(planned, tmp_path)
    assert steps.did[-1] == failing
    assert Store(tmp_path).find("reference", planned.steps[3].key) is None
    steps.failing = ""
    make(planned, tmp_path)
    assert steps.did[-2:] == ["reference heard", "validate"]
    assert steps.did.count("fetch") == 1


def test_what_nobody_goes_on_with_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Noting(monkeypatch)
    planned = made("model=tiny.en", "profile=duplex_lowmem")
    with making.Run(planned, Store(tmp_path)) as run:
        for step in run.order()[:2]:
            run.ensure(step)
        begun: Any = run.audition
        assert not begun.closed
    assert begun.closed


def test_nothing_is_heard_again_for_a_validation_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, planned = Noting(monkeypatch), made("model=tiny.en", "profile=duplex_lowmem")
    make(planned, tmp_path)
    shutil.rmtree(tmp_path / "reference" / planned.steps[3].key)
    with making.Run(planned, Store(tmp_path)) as run:
        for step in run.order():
            run.ensure(step)
        assert run.audition is None
    assert steps.did[len(BESIDE):] == ["reference", "reference heard"]


def test_a_validation_that_is_made_again_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, planned = Noting(monkeypatch), made("model=tiny.en", "profile=duplex_lowmem")
    with making.Run(planned, Store(tmp_path)) as run:
        for step in run.order():
            run.ensure(step)
        (run.finished["validate"].path / "validate.txt").write_text("damaged")
        run.sound.clear()
        run.check(planned.steps[-1])
    assert len(steps.auditions) == 2
    assert steps.auditions[1] is None
