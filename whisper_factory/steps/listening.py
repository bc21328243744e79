"""Running an engine on clips in a process of its own, as validation does it.

A fresh process is what makes load time and peak memory the user's, and keeps an engine that crashes from
taking the factory along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from whisper_factory.errors import EnvironmentFault

LAST_LINES = 5


def clip_requests(clips: list[dict[str, Any]], max_input_len: int, short_window: bool) -> list[dict[str, Any]]:
    """What the engine is asked to hear: every clip, and for short windows its *edge* copies.

    An edge copy is a clip moved right by silence so that it ends 10 to 90 frames before the end of the longest
    input the engine accepts: the range in which a short window has no silence left after the words.

    Args:
        clips: path, text, name and seconds of each.
        max_input_len: the longest clip the engine accepts, in mel frames (100 per second).
        short_window: whether the encoder's window is below 3000 frames.
    """
    requests = [{**clip, "shift_seconds": 0.0, "edge": False} for clip in clips]
    if not short_window:
        return requests
    for index, clip in enumerate(clips):
        end = max_input_len / 100 - (0.1 + 0.2 * (index % 5))
        if clip["seconds"] <= end - 1.0:
            requests.append({**clip, "shift_seconds": round(end - clip["seconds"], 3), "edge": True})
    return requests


def listen(engine: Path, requests: list[dict[str, Any]], scratch: Path, repeats: int) -> dict[str, Any]:
    """Transcribe the clips with `python -m whisper_factory.measure` and return its report.

    Raises:
        EnvironmentFault: the child failed; carries its last lines.
    """
    manifest, report = scratch / "requests.json", scratch / "report.json"
    manifest.write_text(json.dumps({"clips": requests, "options": {}}), encoding="utf-8")
    command = [sys.executable, "-m", "whisper_factory.measure", str(engine), str(manifest), str(report),
               "--repeats", str(repeats)]
    child = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, errors="replace", check=False)
    if child.returncode != 0:
        lines = " | ".join(child.stdout.strip().splitlines()[-LAST_LINES:])
        raise EnvironmentFault(f"the engine failed while being validated (exit code {child.returncode}): {lines}")
    data: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    manifest.unlink()
    report.unlink()
    return data
