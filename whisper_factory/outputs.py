"""The engine directory: links into the store, and the papers that say what they are.

    config.yaml  plan.json  checkpoint/  engine/  validation.json  manifest.json  log.txt
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from whisper_factory import __version__, store
from whisper_factory.plan import Plan
from whisper_factory.steps.validate import REPORT

MANIFEST = "manifest.json"
PAPERS = ("config.yaml", "plan.json")
LINKED = {"convert": "checkpoint", "build": "engine", "validate": "."}


def is_current(plan: Plan) -> bool:
    """Whether the directory already holds exactly what this plan would put there. Trusts file sizes."""
    try:
        manifest = json.loads((plan.directory / MANIFEST).read_text(encoding="utf-8"))
        if any(manifest["steps"][step.name]["key"] != step.key for step in plan.steps):
            return False
        if not all((plan.directory / paper).is_file() for paper in PAPERS):
            return False
        sizes = {name: about["bytes"] for name, about in manifest["outputs"].items()}
        return all((plan.directory / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write(plan: Plan, finished: dict[str, store.Finished], resolved: str) -> None:
    """Bring the directory up to date. Whatever stood there before stays until its successor is whole.

    Args:
        finished: the plan's steps in the store.
        resolved: the composition as YAML.
    """
    directory = plan.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        outputs: dict[str, Any] = {}
        for name, place in LINKED.items():
            if name in finished:
                _replace(finished[name].path, directory, place)
                prefix = "" if place == "." else f"{place}/"
                outputs |= {f"{prefix}{file}": about for file, about in finished[name].record["outputs"].items()}
            else:
                _remove(directory, place)  # of another version of this composition
        papers = {
            "config.yaml": resolved,
            "plan.json": _json(describe(plan)),
            MANIFEST: _json(_manifest(plan, finished, outputs)),
        }
        for file, text in papers.items():  # the manifest last: it vouches for the rest
            _write(directory / file, text)
    except OSError as error:
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
    return {"composition": plan.composition.name, "key": plan.key, "steps": steps}


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
    }


def _replace(source: Path, directory: Path, place: str) -> None:
    """Swap in links to a finished step's files."""
    if place == ".":
        _remove(directory, place)
        store.link_tree(source, directory)
        return
    fresh = directory / f".{place}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    store.link_tree(source, fresh)
    _remove(directory, place)
    os.rename(fresh, directory / place)


def _remove(directory: Path, place: str) -> None:
    if place == ".":
        (directory / REPORT).unlink(missing_ok=True)
    else:
        shutil.rmtree(directory / place, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"

