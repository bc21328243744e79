"""verify=true: every step whose output is promised once more, in a store of its own, file by file against the lock."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_factory import outputs, progress
from whisper_factory.errors import GateMissed
from whisper_factory.locked_outputs import SHAPING, promised
from whisper_factory.plan import Plan
from whisper_factory.steps import STEPS
from whisper_factory.steps.context import Context
from whisper_factory.store import Finished, Store

if TYPE_CHECKING:
    from whisper_factory.lock import Lock

log = logging.getLogger(__name__)


def rebuild(plan: Plan, finished: Mapping[str, Finished], locked: Lock, storage: Store) -> None:
    """Build again from the inputs, and compare with the lock and with what stands in the store.

    Raises:
        GateMissed: a file is not as the lock says, or not as the same machine made it before; all are named.
    """
    log.info("verify    building again in a scratch store")
    with tempfile.TemporaryDirectory(prefix="verify.", dir=storage.root) as scratch:
        again = _make(plan, Store(Path(scratch)), storage.downloads, ("fetch", "keep", *SHAPING))
        equal, wrong = locked.compare(plan, again)
        before, now = promised(plan, finished), promised(plan, again)
    wrong += [f"{name} is not what this machine made before" for name, about in now["computed"].items()
              if about["sha256"] != before["computed"][name]["sha256"]]
    if wrong:
        raise GateMissed(f"{plan.composition.name} could not be made again as {locked.path} says: {'; '.join(wrong)}")
    if not equal:
        log.warning("warning: %s promises no outputs; the rebuilt ones are held against the store's", locked.path)
        _same_as_before(plan, finished, again)
    free = f", {len(now['not_promised'])} not promised" if now["not_promised"] else ""
    log.info("verify    %d files as %s says%s", equal, locked.path, free)


def _same_as_before(plan: Plan, finished: Mapping[str, Finished], again: Mapping[str, Finished]) -> None:
    before = {name: about for name, about, _ in outputs.files(finished, SHAPING)}
    wrong = [name for name, about, _ in outputs.files(again, SHAPING) if about != before.get(name)]
    if wrong:
        raise GateMissed(f"{plan.composition.name} was made twice and is not the same: {', '.join(wrong)}")


def _make(plan: Plan, store: Store, downloads: Path, wanted: tuple[str, ...]) -> dict[str, Finished]:
    made: dict[str, Finished] = {}
    for step in plan.steps:
        if step.name in wanted:
            shown = progress.of_step("verify", lambda line: log.info("%-9s %s", "", line))
            context = Context(lambda line: None, downloads, store.root / outputs.FAILURES, shown)
            inputs = {name: made[name].path for name in step.inputs}
            made[step.name] = store.make(step.name, step.key, step.record,
                                         lambda out, step=step, inputs=inputs, context=context:  # type: ignore[misc]
                                         STEPS[step.name].run(step, inputs, out, context), context.say)
    return made
