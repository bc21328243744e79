"""For gpu.py: the command line itself, as a user runs it: `python gpu_command.py command JOB.json OUT.json`.

A plan, a run (convert, build, the reference, validate), the same run again, which has nothing to do, and what the
engine hears in a clip. JOB: payload, work, model, chosen (what is said on the command line). The weights are put into a
store as the step `fetch` leaves them, so nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOLD = 3000  # characters of what a command said
MADE = "done in"  # what a step that ran says at its end
Job = dict[str, Any]


class CommandFailed(Exception):
    """A command that did not do what it is for; says which, and what it said."""


def stocked(payload: Path, model: str, store: Path) -> None:
    """A store that has the model's weights, if the payload does."""
    source = payload / "sources" / model
    if source.exists():
        key = json.loads((source / "step.json").read_text(encoding="utf-8"))["key"]
        shutil.copytree(source, store / "fetch" / key, ignore=shutil.ignore_patterns("stat.json"), dirs_exist_ok=True)


def said(name: str, words: list[str], folder: Path) -> dict[str, Any]:
    """Run a command to its end.

    Raises:
        CommandFailed: it ended with another exit code than 0.
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=folder, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        told = (done.stdout + done.stderr)[-TOLD:]
        raise CommandFailed(f"{name} ({' '.join(words)}): exit code {done.returncode}\n{told}")
    return {"name": name, "words": words, "seconds": round(seconds, 2), "said": done.stdout[-TOLD:],
            "progress": done.stderr[-TOLD:]}


def command(job: Job) -> dict[str, Any]:
    """What each command took and said, and the validation that the first run left."""
    folder = Path(job["work"]) / "command" / "-".join(job["chosen"][:2]).replace("=", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stocked(Path(job["payload"]), job["model"], folder / "store")
    run = ["whisper_factory", *job["chosen"], f"store.path={folder / 'store'}", f"outputs={folder / 'outputs'}"]
    commands = [said("plan", [*run, "dry_run=true"], folder), said("run", run, folder), said("run again", run, folder)]
    if [MADE in one["progress"] for one in commands] != [False, True, False]:
        raise CommandFailed(f"the first run made no step, or the second some:\n{commands[2]['progress']}")
    (made,) = (path.parent for path in folder.glob("outputs/*/*/manifest.json"))
    hear = ["whisper_factory.run", "--engine_dir", str(made), "--input_file", str(job["clip"])]
    commands.append(said("hear", hear, folder))
    validated = made / "validation.json"
    return {"commands": commands, "engine": made.parent.name, "heard": commands[-1]["said"].strip(),
            "validation": json.loads(validated.read_text(encoding="utf-8")) if validated.exists() else None}


def main() -> None:
    """Run them."""
    job = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    job = {"clip": Path(job["payload"]) / "clips" / "000.flac", **job}
    Path(sys.argv[3]).write_text(json.dumps(command(job)), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except CommandFailed as failed:
        sys.exit(str(failed))
