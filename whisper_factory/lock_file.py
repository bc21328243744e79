"""A lock as a file: reading, writing, and how two contents differ, with the lines that say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whisper_factory.errors import UserError
from whisper_factory.locked_outputs import CLOSE, has_outputs
from whisper_factory.store import fault, files

WHAT_TO_DO = "lock=off runs it without the lock, lock=write locks the recipe anew"
ELSEWHERE = "copy the recipe into recipes/ of a directory that can be written"
PARTS = ("composition", "inputs", "tools")
ABSENT = "(none)"


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
    if not all(isinstance(found.get(part), dict) for part in PARTS) or not has_outputs(found.get("outputs")):
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


def differences(locked: Any, now: Any, part: str, ignored: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    """(dotted key, the lock's value, today's) of each leaf of one part that is not the same in both. An empty part has
    none."""
    before, after = (dict(_leaves(content[part], part) if content.get(part) else ()) for content in (locked, now))
    pairs = [(key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in sorted({*before, *after})]
    return [(key, one, other) for key, one, other in pairs
            if one != other and key.rpartition(".")[2] not in ignored]


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}")
    else:
        yield key, value


def told(lines: list[str], key: str, locked: Any, now: Any) -> str:
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
