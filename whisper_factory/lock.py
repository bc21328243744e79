"""A recipe's lock: every input, the resolved composition, the tools, and the digest of every output that is promised.

`recipes/X.lock` lies beside `recipes/X.yaml`. Where it exists, a run of the recipe is held against it before any
work: other inputs or another composition are refused, another tool version warns. Outputs are promised in two
classes: to the byte, on any machine; and, for what a floating-point kernel computed, to the byte on one machine and
within 1e-3 on others, on values spread over the file that the lock keeps.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from whisper_factory import backends, outputs, recipes
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.plan import Plan
from whisper_factory.schema import Composition
from whisper_factory.store import Finished, fault, files

log = logging.getLogger(__name__)
MODES = ("check", "write", "inputs", "off")
SHAPING = ("convert", "pack", "kit", "build")  # the steps whose outputs are promised
WHAT_TO_DO = "lock=off runs it without the lock, lock=write locks the recipe anew"
ELSEWHERE = "copy the recipe into recipes/ of a directory that can be written"
PARTS = ("composition", "inputs", "tools")
ABSENT = "(none)"
UNPROVEN = "unproven: the weights were not at hand where this was written"
SAMPLES = 64
CLOSE = 1e-3
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
        wrong = [*_differences(self.locked, now, "composition"), *_differences(self.locked, now, "inputs", ("bytes",))]
        if wrong:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            told = "; ".join(_told(lines, *difference) for difference in wrong[:TOLD])
            more = f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
            raise UserError(f"{self.path} locks another engine: {told}{more}; {WHAT_TO_DO}")
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
            close = known is not None and _close(known["sample"], about["sample"])
            equal += close
            if not close:
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


def promised(plan: Plan, finished: Mapping[str, Finished]) -> dict[str, Any]:
    """The outputs of finished steps by what is promised of them, named as in the engine directory."""
    backend = backends.get(plan.spec.backend)
    exact: dict[str, Any] = {}
    computed: dict[str, Any] = {}
    free: list[str] = []
    for name, about, path in outputs.files(finished, SHAPING):
        kind = next((kind for pattern, kind in backend.COMPUTED.items() if fnmatch(path.name, pattern)), None)
        if any(fnmatch(path.name, pattern) for pattern in backend.UNPROMISED):
            free.append(name)
        elif kind:
            computed[name] = {**about, "sample": _sample(path, kind)}
        else:
            exact[name] = about
    return {"exact": exact, "computed": computed, "not_promised": free}


def _sample(path: Path, kind: str) -> list[float]:
    """Some of the values of a file of this type, spread over it."""
    import numpy as np

    values = np.fromfile(path, kind)
    return [round(float(value), 6) for value in values[:: max(1, len(values) // SAMPLES)][:SAMPLES]]


def _close(known: list[float], now: list[float]) -> bool:
    """Within CLOSE, or CLOSE of the value where that is above 1: float16 is no finer there."""
    return len(known) == len(now) and all(abs(a - b) <= CLOSE * max(1, abs(a)) for a, b in zip(known, now, strict=True))


def _has_outputs(outputs: Any) -> bool:
    """Whether a lock's outputs are as `promised` gives them, or said to be unproven."""
    if isinstance(outputs, str):
        return True
    parts = [outputs.get(part) for part in ("exact", "computed")] if isinstance(outputs, dict) else [None]
    samples = [about.get("sample") if isinstance(about, dict) else None
               for about in (parts[-1].values() if isinstance(parts[-1], dict) else ())]
    return all(isinstance(part, dict) for part in parts) and all(
        isinstance(sample, list) and all(isinstance(value, float) for value in sample) for sample in samples)


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


def _differences(locked: Any, now: Any, part: str, ignored: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    """(dotted key, the lock's value, today's) of each leaf of one part that is not the same in both."""
    before, after = (dict(_leaves(content.get(part), part)) for content in (locked, now))
    pairs = [(key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in sorted({*before, *after})]
    return [(key, one, other) for key, one, other in pairs
            if one != other and key.rpartition(".")[2] not in ignored]


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}")
    else:
        yield key, value


def _told(lines: list[str], key: str, locked: Any, now: Any) -> str:
    """One difference, with the line of the lock that says otherwise."""
    show = repr if str(locked) == str(now) else str  # '750' is not 750
    if locked is ABSENT:
        return f"it does not say {key}, now it is {now}"
    after = "now there is none" if now is ABSENT else f"now it is {show(now)}"
    return f"line {_line(lines, key)} says {key}: {show(locked)}, {after}"


def _line(lines: list[str], key: str) -> int | None:
    """The number of the line that holds a dotted key, in YAML as `write` writes it: two spaces a level."""
    at, rest, depth = 0, key, 0
    while rest:
        for number in range(at, len(lines)):
            said = lines[number][2 * depth :]
            if said.startswith(" ") or not lines[number].startswith("  " * depth):
                continue
            name = said.partition(":")[0].strip("'\"")
            if ":" in said and f"{rest}.".startswith(f"{name}."):
                at, rest, depth = number + 1, rest[len(name) + 1 :], depth + 1
                break
        else:  # deeper levels stand on the line of their parent
            break
    return at or None


def _other_tools(locked: Any, now: Any, partly: bool) -> list[str]:
    """What was made with other versions; a run that stops early uses fewer tools."""
    return [f"made with {key.partition('.')[2]} {before}, here it is {after}"
            for key, before, after in _differences(locked, now, "tools") if not (partly and after is ABSENT)]


def read(path: Path) -> dict[str, Any]:
    """What a lock says.

    Raises:
        UserError: it is missing or damaged.
    """
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it is: a tenth of the time
        content: Any = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}; {WHAT_TO_DO}") from error
    found: dict[str, Any] = content if isinstance(content, dict) else {}
    if not all(isinstance(found.get(part), dict) for part in PARTS) or not _has_outputs(found.get("outputs")):
        raise UserError(f"{path} is not a lock, or not a whole one; {WHAT_TO_DO}")
    return found


def write(path: Path, content: dict[str, Any]) -> None:
    """Put a lock in its place, whole or not at all.

    Raises:
        EnvironmentFault: the recipe's directory cannot be written.
    """
    import yaml

    head = (f"# What `python -m whisper_factory recipe={content['recipe']}` is made of. Written by lock=write.\n"
            "# exact: these bytes on every machine. computed: by a floating-point kernel, these bytes on one machine,\n"
            f"# within {CLOSE} on others, as the sample shows. not_promised: other bytes with every build.\n")
    text = head
    for name, part in content.items():  # one fact a line
        flow = None if name == "outputs" and isinstance(part, dict) else False
        text += yaml.safe_dump({name: part}, sort_keys=False, default_flow_style=flow, width=2000, allow_unicode=True)
    try:
        files.replace(path, text)
    except OSError as error:
        known = fault(error, path.parent, ELSEWHERE)
        if known is None:
            raise
        raise known from error
