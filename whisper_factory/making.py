"""Making a plan's steps: from the store or now, each after what it needs, and some beside each other."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from whisper_factory import outputs, progress
from whisper_factory.plan import Plan
from whisper_factory.planned_steps import REFERENCE_BACKEND, PlannedStep
from whisper_factory.steps import STEPS, reference
from whisper_factory.steps import validate as validation
from whisper_factory.steps.audition import Audition
from whisper_factory.steps.closing import Closing
from whisper_factory.steps.context import Context
from whisper_factory.steps.listening import Ears
from whisper_factory.store import Finished, Store
from whisper_factory.threads import import_numpy

log = logging.getLogger(__name__)


class Run(Closing):
    """One run: what is finished, and which steps' files were made or hashed in it."""

    def __init__(self, made: Plan, storage: Store):
        self.plan = made
        self.steps = {step.name: step for step in made.steps}
        self.failures = made.directory / outputs.FAILURES
        self.storage = storage
        self.finished: dict[str, Finished] = {}
        self.sound: set[str] = set()
        self.ears: Ears | None = None  # of the reference, started while weights are fetched
        self.audition: Audition | None = None  # of the engine that is made beside the reference

    def close(self) -> None:
        """End what was begun and nobody went on with."""
        for begun in (self.ears, self.audition):
            if begun:
                begun.close()

    def order(self) -> list[PlannedStep]:
        """The steps as they are made: as planned, but for a reference beside which others are made."""
        steps = list(self.plan.steps)
        if self._reference_first():
            steps.sort(key=lambda step: step.name not in ("fetch", "reference"))
        return steps

    def _reference_first(self) -> bool:
        """Whether there is a reference to be made beside which others are."""
        return self._beside_reference() and self.storage.find("reference", self.steps["reference"].key) is None

    def _beside_reference(self) -> bool:
        """Whether the engine may be made beside the reference: if that is quick, and no choice depends on its times."""
        return (set(self.steps) == {"fetch", "convert", "build", "reference", "validate"}
                and self.plan.spec.backend == REFERENCE_BACKEND and "calibration" not in self.steps["convert"].params)

    def _meanwhile(self) -> None:
        """While the reference is heard: the engine, and then as much of its validation as needs no quiet."""
        for name in ("convert", "build"):
            self.ensure(self.steps[name])
        build, validate = self.steps["build"], self.steps["validate"]
        self.check(build)
        if self.storage.find(validate.name, validate.key) is None:
            scratch = self.storage.scratch(build.key)  # the step's own key would not do: making it clears what is left
            self.audition = validation.begin(validate, self.finished["build"].path, scratch)

    def ensure(self, step: PlannedStep) -> None:
        """Have the step finished: from the store, or made now."""
        if step.name in self.finished:
            return
        found = self.storage.find(step.name, step.key)
        if found:
            self.finished[step.name] = found
            log.info("%-9s didn't change (%s)", step.name, step.key[:12], extra={"idle": True})
        else:
            self._make(step)

    def check(self, step: PlannedStep) -> None:
        """Before its files are read: hash them, unless this run made or hashed them, and make it again if damaged."""
        if step.name not in self.sound and not self.storage.is_sound(self.finished[step.name]):
            self._make(step, check=True)
        self.sound.add(step.name)

    def _make(self, step: PlannedStep, check: bool = False) -> None:
        for name in step.inputs:
            self.check(self.steps[name])
        log.info("%-9s %s (%s)", step.name, step.about, step.key[:12])
        if step.name == "fetch" and not self.ears and self._reference_first():
            self.ears = reference.begin(self.steps["reference"])
        context = Context(_say, self.storage.downloads, self.failures, progress.of_step(step.name, _say),
                          self.storage.caches)
        if step.name == "reference" and self._beside_reference():
            context, self.ears = replace(context, meanwhile=self._meanwhile, ears=self.ears), None
        if step.name == "validate":  # the first time; what was heard once has to be heard again
            context, self.audition = replace(context, audition=self.audition), None
        inputs = {name: self.finished[name].path for name in step.inputs}
        started = time.monotonic()
        ran = False

        def work(out: Path) -> Mapping[str, str] | None:
            nonlocal ran
            ran = True
            import_numpy()
            digests: Mapping[str, str] | None = STEPS[step.name].run(step, inputs, out, context)
            return digests

        try:
            self.finished[step.name] = self.storage.make(step.name, step.key, step.record, work, context.say, check)
        finally:
            for begun in (context.ears, context.audition):
                if begun:
                    begun.close()
        self.sound.add(step.name)
        took = f"done in {time.monotonic() - started:.1f} s" if ran else "was made by another process meanwhile"
        log.info("%-9s %s", step.name, took)


def _say(line: str) -> None:
    log.info("%-9s %s", "", line)
