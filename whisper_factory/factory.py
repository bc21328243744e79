"""The whole run: plan, do what is not done, write the engine directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whisper_factory import backends, memory, outputs, plan, remedies, store, verify
from whisper_factory.errors import FactoryError, GateMissed
from whisper_factory.lock import Lock
from whisper_factory.making import Run
from whisper_factory.memory import Estimate
from whisper_factory.plan import Plan
from whisper_factory.schema import Composition
from whisper_factory.sources import local
from whisper_factory.steps import keep
from whisper_factory.steps import validate as validation
from whisper_factory.store import Finished, Store, users

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a run has to show."""

    plan: Plan
    memory: Estimate
    finished: dict[str, Finished]
    validation: dict[str, Any] | None  # validation.json, if the plan has that step
    device: str  # what the memory is of


def produce(composition: Composition, resolved: str, notes: Sequence[str] = (), locked: Lock | None = None) -> Outcome:
    """Make the engine that a composition declares.

    Args:
        composition: checked and settled (see schema).
        resolved: the composition as YAML, kept as config.yaml.
        notes: what settling it had to say.
        locked: the recipe's lock, if there is one to hold the run against, or to write.

    Raises:
        UserError, EnvironmentFault: see the steps, and the lock.
        GateMissed: verify=true, and a file is not as the lock says.
    """
    composition.outputs = str(local(composition.outputs))
    storage = Store(local(composition.store.path) if composition.store.path else store.default_path())
    made = plan.make(composition, lambda step, key: storage.find(step, key) is not None, notes)
    log.info("%s -> %s", composition.name, made.directory)
    if locked:
        locked.before(made)
    for note in made.notes:
        level = logging.WARNING if note.startswith("warning") else logging.INFO
        log.log(level, "note      %s", note, extra={"idle": True})
    needed, name = _memory(made, storage), _device(made)[0]
    for line in memory.table(needed, name):
        log.info("memory    %s", line, extra={"idle": True})
    if composition.dry_run or (locked and locked.plans_only):
        cached = {step.name: found for step in made.steps if (found := storage.find(step.name, step.key))}
        return Outcome(made, needed, cached, None, name)
    _check_device(made, needed, storage)
    with storage.use(composition.name), Run(made, storage) as run:
        with _LogFile(made.directory / "log.txt"):
            for step in run.order():
                run.ensure(step)
                if step.name == "keep" and needed.least is not None:  # now it is known what is kept
                    needed = _memory(made, storage)
                    log.info("memory    %s at load, %s at the peak", memory.size(needed.load), memory.size(needed.peak))
            _bring_up_to_date(run, resolved)
        if locked:
            locked.after(made, run.finished)
        if locked and composition.verify:
            verify.rebuild(made, run.finished, locked, storage)
    return Outcome(made, needed, run.finished, _validation(run.finished), name)


def _memory(made: Plan, storage: Store) -> Estimate:
    """What the engine will take of its device; refused where that is more than there is.

    Before it is known which layers keep 8 bits it is what all of them would take, and refused only where none may.
    """
    name, budget = _device(made)
    reserved = round(made.composition.device.reserved_mb * memory.MB)
    chosen = next((storage.find(step.name, step.key) for step in made.steps if step.name == "keep"), None)
    spec = keep.settled(made.spec, {"keep": chosen.path} if chosen else {})
    needed = memory.estimate(spec, budget, reserved)
    remedies.refuse_what_does_not_fit(spec, needed, name)
    if chosen or spec.precision.max_wer_delta is None:
        return needed
    return replace(memory.estimate(keep.most(spec), budget, reserved), least=needed.peak)


def _device(made: Plan) -> tuple[str, int | None]:
    """What the engine is to run on, and its bytes where they are known: what was declared, else what is here."""
    device = made.composition.device
    if device.memory_gb is not None:
        return device.name, round(device.memory_gb * memory.GB)
    if backend := backends.on_device(made.spec.backend):
        return backend.device_memory()
    return device.name, memory.host_memory()


def _check_device(made: Plan, needed: Estimate, storage: Store) -> None:
    """Refuse, before anything is made, an engine that is to run on a GPU here and cannot."""
    backend = backends.on_device(made.spec.backend)
    if backend is None or made.composition.stop_after is not None:  # it is to run elsewhere
        return
    if any(storage.find(step.name, step.key) is None for step in made.steps):
        backend.check_device(made.spec, needed.peak if needed.least is None else needed.least)


def _bring_up_to_date(run: Run, resolved: str) -> None:
    """The output directory; what it is made of is hashed first, since its manifest vouches for it."""
    if not outputs.is_current(run.plan, run.finished):
        for step in run.plan.steps:
            if step.name in outputs.PLACES:
                run.check(step)
        with run.storage.lock(f"outputs-{run.plan.key}") as alone:
            outputs.write(run.plan, run.finished, resolved, alone)
    users.note(run.storage.root, run.plan.directory)


def _validation(finished: dict[str, Finished]) -> dict[str, Any] | None:
    if "validate" not in finished:
        return None
    report: dict[str, Any] = json.loads((finished["validate"].path / validation.REPORT).read_text(encoding="utf-8"))
    return report


def check_gates(outcome: Outcome) -> None:
    """Raise GateMissed if the engine's validation did not pass, on this run as on the first."""
    if outcome.validation and not outcome.validation["passed"]:
        raise GateMissed(f"{outcome.plan.composition.name} missed a gate of validation="
                         f"{outcome.validation['name']}: {validation.missed(outcome.validation)}; "
                         f"the engine stays in {outcome.plan.directory}")


class _LogFile(logging.Handler):
    """log.txt of an engine directory: opened when a run has something to do, so a no-op run writes nothing."""

    def __init__(self, path: Path):
        super().__init__(logging.INFO)
        self.path = path
        self.waiting: list[str] = []
        self.worth_keeping = False
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def __enter__(self) -> _LogFile:
        logging.getLogger("whisper_factory").addHandler(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        logging.getLogger("whisper_factory").removeHandler(self)
        if isinstance(error, FactoryError):
            self.waiting.append(f"failed: {error}")
        if error or self.worth_keeping:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as stream:
                    stream.write("".join(f"{line}\n" for line in self.waiting))
            except OSError as problem:  # the log must not hide what it would have told
                logging.getLogger(__name__).warning("cannot write %s: %s", self.path, problem.strerror)

    def emit(self, record: logging.LogRecord) -> None:
        self.waiting.append(self.format(record))
        self.worth_keeping = self.worth_keeping or not getattr(record, "idle", False)
