"""A recipe's lock: every input, the resolved composition, the tools, and the digest of every output that is promised.

`recipes/X.lock` lies beside `recipes/X.yaml`. Where it exists, a run of the recipe is held against it before any
work: other inputs or another composition are refused, another tool version warns; what outputs are promised, see
`locked_outputs`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from whisper_factory import recipes
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.lock_file import ABSENT, ELSEWHERE, WHAT_TO_DO, differences, read, told, write
from whisper_factory.locked_outputs import CLOSE, SHAPING, close, promised
from whisper_factory.plan import Plan
from whisper_factory.schema import Composition
from whisper_factory.store import Finished

log = logging.getLogger(__name__)
MODES = ("check", "write", "inputs", "off")
UNPROVEN = "unproven: the weights were not at hand where this was written"
TOLD = 3  # differences in one error


@dataclass(frozen=True)
class Lock:
    """A recipe's lock in one run: where it lies, what is to be done with it, and what is declared now."""

    recipe: str
    path: Path
    mode: str
    composition: dict[str, Any]

    @cached_property
    def locked(self) -> dict[str, Any]:
        """What the file says."""
        return read(self.path)

    @property
    def plans_only(self) -> bool:
        """Whether the run ends with its plan: the inputs are locked, and nothing is made."""
        return self.mode == "inputs"

    def before(self, plan: Plan) -> None:
        """Hold a plan against the lock, before any work.

        Raises:
            UserError: the lock says other inputs or another composition, or cannot be read.
        """
        if self.plans_only:
            write(self.path, self._content(plan, None))
        elif self.mode == "write" and not os.access(self.path.parent, os.W_OK):  # said before the work, not after
            raise EnvironmentFault(f"cannot write {self.path}; {ELSEWHERE}")
        if self.mode != "check":
            return
        now = self._content(plan, None)
        wrong = [*differences(self.locked, now, "composition"), *differences(self.locked, now, "inputs", ("bytes",))]
        if wrong:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            first = "; ".join(told(lines, *difference) for difference in wrong[:TOLD])
            more = f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
            raise UserError(f"{self.path} locks another engine: {first}{more}; {WHAT_TO_DO}")
        for tool in _other_tools(self.locked, now, plan.composition.stop_after is not None):
            log.warning("warning: %s: %s; outputs may differ", self.path.name, tool)

    def after(self, plan: Plan, finished: Mapping[str, Finished]) -> None:
        """Write the lock, or warn of finished outputs that are not those of the lock."""
        if self.mode == "write":
            write(self.path, self._content(plan, finished))
            log.info("lock      %s", self.path)
        elif self.mode == "check":
            for line in self.compare(plan, finished)[1]:
                log.warning("warning: %s: %s", self.path.name, line)

    def compare(self, plan: Plan, finished: Mapping[str, Finished]) -> tuple[int, list[str]]:
        """How many finished outputs are as the lock says, and a line for each that is not."""
        locked = self.locked["outputs"]
        if not isinstance(locked, dict):
            return 0, []
        now, equal, wrong = promised(plan, finished), 0, []
        for name, about in now["exact"].items():
            known = locked["exact"].get(name)
            equal += known == about
            if known != about:
                wrong.append(f"{name} differs" if known else f"{name} is not in the lock")
        for name, about in now["computed"].items():
            known = locked["computed"].get(name)
            as_locked = known is not None and close(known["sample"], about["sample"])
            equal += as_locked
            if not as_locked:
                wrong.append(f"{name} differs by more than {CLOSE}" if known else f"{name} is not in the lock")
        if plan.composition.stop_after is None:
            made = {*now["exact"], *now["computed"], *now["not_promised"]}
            wrong += [f"{name} is in the lock and was not made" for part in ("exact", "computed")
                      for name in locked[part] if name not in made]
        return equal, wrong

    def _content(self, plan: Plan, finished: Mapping[str, Finished] | None) -> dict[str, Any]:
        tools = {name: version for step in plan.steps if step.name in SHAPING for name, version in step.tools.items()}
        return {"recipe": self.recipe, "key": plan.key, "composition": self.composition,
                "inputs": _inputs(plan, finished), "tools": dict(sorted(tools.items())),
                "outputs": promised(plan, finished) if finished else UNPROVEN}


def keeper(composition: Composition, recipe: str | None, declared: str, typed: Collection[str]) -> Lock | None:
    """The lock of a run, if it has one.

    Args:
        recipe: the name that the run gave.
        declared: the resolved composition as YAML, without what belongs to this run alone.
        typed: what the command line changed of it.

    Raises:
        UserError: a mode that is unknown, or that goes with a recipe or a lock that is not there.
    """
    mode = composition.lock
    if mode is not None and mode not in MODES:
        raise UserError(f"lock: unknown '{mode}'; choices: {', '.join(MODES)}")
    if recipe is None:
        if mode not in (None, "off") or composition.verify:
            raise UserError("lock=... and verify=true go with a recipe; choices: "
                            f"{', '.join(f'recipe={name}' for name in recipes.found())}")
        return None
    path = recipes.lock_path(recipe)
    chosen = mode or ("check" if path.is_file() else "off")
    if (chosen == "check" or composition.verify) and not path.is_file():
        raise UserError(f"recipe '{recipe}' has no lock ({path}); lock=write writes one")
    if composition.verify and (composition.dry_run or chosen == "inputs"):
        raise UserError("verify=true makes the engine once more; leave dry_run and lock=inputs out")
    if chosen == "write" and (composition.dry_run or composition.stop_after):
        raise UserError("lock=write makes the whole engine; leave dry_run and stop_after out, or use lock=inputs")
    if chosen in ("write", "inputs") and typed:
        raise UserError(f"lock={chosen} locks a recipe as its file says; leave {', '.join(typed)} out, or put it there")
    if chosen == "off" and not composition.verify:
        return None
    import yaml

    resolved = yaml.safe_load(declared)
    if resolved["backend"].get("provider") == "cpu":  # which a lock does not say
        del resolved["backend"]["provider"]
    return Lock(recipe, path, chosen, resolved)


def _inputs(plan: Plan, finished: Mapping[str, Finished] | None) -> dict[str, Any]:
    """Every input: where it comes from, its digest, and its size where it has been seen."""
    sizes = finished["fetch"].record["outputs"] if finished else {}
    found: dict[str, Any] = {}
    for name, parts in plan.source.files.items():
        where = f"weights/{name}"
        found[where] = {"from": [part.name or part.origin for part in parts], "sha256": [part.sha256 for part in parts]}
        found[where]["bytes"] = sizes[where]["bytes"] if where in sizes else "not seen yet"
    vocabulary = plan.source.vocabulary
    about = sizes.get("vocabulary.tiktoken", {})
    found["vocabulary.tiktoken"] = {"from": [vocabulary.url], "sha256": [vocabulary.sha256],
                                    "bytes": about.get("bytes", "not seen yet")}
    if plan.clips:
        said = plan.composition.validation
        found["clips"] = {"from": [said.clips or f"the bundled set '{said.bundled}'"], "sha256": [plan.clips]}
    return found


def _other_tools(locked: Any, now: Any, partly: bool) -> list[str]:
    """What was made with other versions; a run that stops early uses fewer tools, or none."""
    return [f"made with {key.partition('.')[2]} {before}, here it is {after}"
            for key, before, after in differences(locked, now, "tools") if not (partly and after is ABSENT)]
