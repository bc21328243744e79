"""The engine directory: links into the store, and the papers that say what they are.

    config.yaml  plan.json  checkpoint/  engine/  validation.json  manifest.json  log.txt

A backend whose engines are built on their device also has build.sh, requirements.txt and runtime/ here, its own
packed checkpoint in checkpoint/, and kit.tar: all of that in one file, for the device.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_factory import __version__, store
from whisper_factory.plan import Plan
from whisper_factory.steps import keep
from whisper_factory.steps.keep import CHOICE
from whisper_factory.steps.validate import REPORT
from whisper_factory.store import holds
from whisper_factory.store.files import replace
from whisper_factory.store.steps import TAKEN

MANIFEST = "manifest.json"
PAPERS = ("config.yaml", "plan.json")
# Where a step's files go; a packed checkpoint takes the canonical one's place.
PLACES = {"keep": "", "convert": "checkpoint", "pack": "checkpoint", "kit": "", "build": "engine", "validate": ""}
KIT = "kit.tar"
BUILT = "build.json"  # of an engine whose backend has a toolkit build it
COARSE, APART = 10**7, 2 * 10**9  # ns: exFAT keeps times to hundredths, FAT to two seconds
FAILURES = "failed"  # the log of an external command that failed, and a script that repeats it; gone once it works
OWNED = ("checkpoint", "engine", "runtime", "build.sh", "requirements.txt", REPORT, CHOICE, KIT, FAILURES)


def is_current(plan: Plan, finished: dict[str, store.Finished]) -> bool:
    """Whether the directory already holds exactly what this plan would put there. Reads no file but the manifest.

    Args:
        finished: the plan's steps in the store: a file of theirs must be here as a link, or as a copy of the same
            size and time. Of other files, those of a longer plan, the size must be right.
    """
    try:
        manifest = json.loads((plan.directory / MANIFEST).read_text(encoding="utf-8"))
        if any(manifest["steps"][step.name]["key"] != step.key for step in plan.steps):
            return False
        if not all((plan.directory / paper).is_file() for paper in PAPERS):
            return False
        if any(step.name == "kit" for step in plan.steps) and not (plan.directory / KIT).is_file():
            return False
        if not all(_is_same(plan.directory / name, stored) for name, _, stored in files(finished)):
            return False
        return all((plan.directory / name).stat().st_size == about["bytes"]
                   for name, about in manifest["outputs"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_same(path: Path, source: Path) -> bool:
    found, wanted = path.stat(), source.stat()
    if os.path.samestat(found, wanted):
        return True
    copied, made = found.st_mtime_ns, wanted.st_mtime_ns
    is_coarse = found.st_dev != wanted.st_dev and copied % COARSE == 0 and abs(copied - made) <= APART
    return found.st_size == wanted.st_size and (copied == made or is_coarse)


def write(plan: Plan, finished: dict[str, store.Finished], resolved: str, alone: bool = True) -> None:
    """Bring the directory up to date. Whatever stood there before stays until its successor is whole.

    Args:
        finished: the plan's steps in the store.
        resolved: the composition as YAML.
        alone: no other process of this host is writing there now, so that what looks half done is left over.
    """
    directory = plan.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if alone:
            _tidy(directory)
        held = list(files(finished))
        parts = {name.partition("/")[0] for name, _, _ in held}
        built_by_hand = {"engine"} if "kit" in finished else set()  # by build.sh: not ours to remove
        for part in OWNED:
            if part not in parts | built_by_hand:
                _remove(directory / part)  # of another version of this composition
        for part in sorted(parts):
            _replace(directory, part, {name: path for name, _, path in held if name.partition("/")[0] == part})
        papers = {
            "config.yaml": resolved,
            "plan.json": _json(describe(plan)),
            MANIFEST: _json(_manifest(plan, finished, {name: about for name, about, _ in held})),
        }
        for file, text in papers.items():  # the manifest last: it vouches for the rest
            replace(directory / file, text)
        if "kit" in finished:
            _write_kit(directory, [name for name in (*(name for name, _, _ in held), *papers)
                                   if not name.startswith("engine/")])
    except OSError as error:
        if alone:
            with suppress(OSError):
                _tidy(directory)
        known = store.fault(error, directory, "outputs=DIR moves the outputs")
        if known is None:
            raise
        raise known from error


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as data: no path of this machine, no clock."""
    steps = [
        {"step": step.name, "key": step.key, "about": step.about, "params": step.params, "inputs": step.inputs,
         "tools": step.tools}
        for step in plan.steps
    ]
    return {"composition": plan.composition.name, "key": plan.key, "steps": steps, "notes": list(plan.notes)}


def _manifest(plan: Plan, finished: dict[str, store.Finished], outputs: dict[str, Any]) -> dict[str, Any]:
    origins = {f"weights/{name}": [part.origin for part in parts] for name, parts in plan.source.files.items()}
    inputs = {name: about | {"from": origins.get(name, [plan.source.vocabulary.url])}
              for name, about in finished["fetch"].record["outputs"].items()}
    return {
        "whisper_factory": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "composition": plan.composition.name,
        "key": plan.key,
        "steps": {step.name: {"key": step.key, "tools": step.tools, "seconds": finished[step.name].record["seconds"]}
                  for step in plan.steps},
        "inputs": inputs,
        "outputs": outputs,
        **_calibration(plan),
        **_kept(finished),
        **_builders(finished),
    }


def _calibration(plan: Plan) -> dict[str, Any]:
    """How the weights were calibrated, and with which clips."""
    convert = next((step for step in plan.steps if step.name == "convert"), None)
    if convert is None or "calibration" not in convert.params:
        return {}
    return {"calibration": {**convert.params["calibration"], "names": [one["name"] for one in convert.hints["speech"]]}}


def _kept(finished: dict[str, store.Finished]) -> dict[str, Any]:
    """Which layers keep 8 bits, and why, where that was chosen; kept.json has each layer's harm, too."""
    if "keep" not in finished:
        return {}
    return {"kept": {name: value for name, value in keep.read(finished["keep"].path).items() if name != "order"}}


def _builders(finished: dict[str, store.Finished]) -> dict[str, Any]:
    """What a toolkit told of its builds: how long each took, and how large what it made is."""
    path = finished["build"].path / BUILT if "build" in finished else None
    return {"built": json.loads(path.read_text(encoding="utf-8"))} if path and path.is_file() else {}


def files(finished: Mapping[str, store.Finished], steps: Collection[str] = tuple(PLACES)
          ) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """What the directory holds of these steps: (path in it, size and digest, where it lies in the store)."""
    for step, place in PLACES.items():
        if step not in finished or step not in steps or (step == "convert" and "pack" in finished):
            continue
        for name, about in finished[step].record["outputs"].items():
            yield f"{place}/{name}" if place else name, about, finished[step].path / name


def _replace(directory: Path, part: str, files: dict[str, Path]) -> None:
    """Swap in links to finished steps' files: one file or folder of the directory."""
    fresh = directory / f".{part}.new.{holds.mine()}"
    for name, source in files.items():
        target = fresh.parent / f"{fresh.name}{name.removeprefix(part)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        store.link(source, target)
    while True:
        _remove(directory / part)
        try:
            return os.rename(fresh, directory / part)
        except OSError as error:
            if error.errno not in TAKEN:  # another host puts the same there
                raise


def _remove(path: Path) -> None:
    """At once for everybody, then file by file."""
    away = path.with_name(f".{path.name}.old.{holds.mine()}")
    with suppress(FileNotFoundError):
        os.rename(path, away)
        if away.is_dir():
            shutil.rmtree(away)
        else:
            away.unlink()


def _tidy(directory: Path) -> None:
    """Remove what a process of this host that was killed, or ran out of space, left half done."""
    for left in directory.glob(f".*.{holds.host()}.*"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _write_kit(directory: Path, names: list[str]) -> None:
    """Everything in one file, the same bytes for the same content."""
    import tarfile

    fresh = directory / f".{KIT}.new.{holds.mine()}"
    with tarfile.open(fresh, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(names):
            info = tar.gettarinfo(directory / name, f"kit/{name}")
            info.mtime = info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if name.endswith(".sh") else 0o644
            info.type = tarfile.REGTYPE  # hard links of one file are files to the device
            info.size = (directory / name).stat().st_size
            with (directory / name).open("rb") as stream:
                tar.addfile(info, stream)
    os.replace(fresh, directory / KIT)


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"

