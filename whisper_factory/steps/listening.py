"""Running an engine on clips in a process of its own, as validation does it.

A fresh process is what makes load time and peak memory the user's, and keeps an engine that crashes from
taking the factory along.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.interruptions import held_back
from whisper_factory.progress import Progress, silent
from whisper_factory.threads import physical_cores

LAST_LINES = 5
HEARD = re.compile(r"heard \d+ of \d+\n")  # a line of `measure --progress`
# With this process's own search path: `-m` would put the working directory, and what lies there, in front.
CHILD = "import sys; sys.path[:] = {path!r}; from whisper_factory.measure import main; sys.exit(main())"


def clip_requests(clips: list[dict[str, Any]], max_input_len: int, short_window: bool) -> list[dict[str, Any]]:
    """What the engine is asked to hear: every clip, and for short windows *edge* recordings made of them.

    An edge recording is the longest the engine accepts, and its words end 10 to 90 frames before the end of that
    range, where a short window is weakest. By turns it is one clip after a long silence (on which a window without
    its end anchor loops), and clips one after the other with what silence remains in front (on which a window
    without a margin does).

    Args:
        clips: path, text, name and seconds of each.
        max_input_len: the longest recording the engine accepts, in mel frames (100 per second).
        short_window: whether the encoder's window is below 3000 frames.
    """
    requests = [{**clip, "paths": [clip["path"]], "shift_seconds": 0.0, "edge": False} for clip in clips]
    if not short_window:
        return requests
    for index, clip in enumerate(clips):
        end = max_input_len / 100 - (0.1 + 0.2 * (index % 5))
        if clip["seconds"] > end:
            continue
        joined = _fill(end, [clip, *clips[index + 1 :], *clips[:index]]) if index % 2 else [clip]
        seconds = sum(part["seconds"] for part in joined)
        requests.append({
            "name": "+".join(part["name"] for part in joined), "text": " ".join(part["text"] for part in joined),
            "paths": [part["path"] for part in joined], "shift_seconds": round(end - seconds, 3), "edge": True,
            "repeats": 1,  # nobody asks for their latency
        })
    return requests


def _fill(room: float, clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first clip, then again and again the longest that still fits."""
    chosen, room = [clips[0]], room - clips[0]["seconds"]
    rest = clips[1:]
    while fitting := [clip for clip in rest if clip["seconds"] <= room]:
        longest = max(fitting, key=lambda clip: clip["seconds"])
        rest.remove(longest)
        chosen.append(longest)
        room -= longest["seconds"]
    return chosen


def listen(engine: Path, requests: list[dict[str, Any]], scratch: Path, repeats: int, progress: Progress = silent
           ) -> dict[str, Any]:
    """Transcribe the clips, one at a time, with `whisper_factory.measure` in a child process; its report.

    Args:
        progress: of the clips.

    Raises:
        UserError: a clip cannot be read.
        EnvironmentFault: the child failed; carries its last lines.
    """
    (report,) = _measure(engine, [{"clips": requests}], scratch, ["--repeats", str(repeats)], progress)
    return report


def hear(engine: Path, requests: list[dict[str, Any]], scratch: Path, batch: int, processes: int,
         progress: Progress = silent) -> list[dict[str, Any]]:
    """What the engine hears in the clips, as soon as may be: `measure`'s reports of them, their latencies meaningless.

    Args:
        batch: clips given to it at once.
        processes: that share the clips and this machine's cores. (Two on one core each hear more than one on two:
            nothing waits for another thread.)

    Raises:
        as `listen`.
    """
    shares = [requests[first::processes] for first in range(processes)]
    manifests = [{"clips": share, "batch": batch, "warm_up": False} for share in shares if share]
    threads = max(1, physical_cores() // processes)
    clips: list[dict[str, Any]] = [{}] * len(requests)
    for first, report in enumerate(_measure(engine, manifests, scratch, ["--threads", str(threads)], progress)):
        clips[first::processes] = report["clips"]
    return clips


def _measure(engine: Path, manifests: list[dict[str, Any]], scratch: Path, flags: list[str], progress: Progress
             ) -> list[dict[str, Any]]:
    """Run `whisper_factory.measure` on each of the manifests, side by side, and return the reports."""
    files = [(scratch / f"requests{number}.json", scratch / f"report{number}.json") for number in range(len(manifests))]
    for manifest, (asked, _) in zip(manifests, files, strict=True):
        asked.write_text(json.dumps(manifest), encoding="utf-8")
    commands = [[sys.executable, "-c", CHILD.format(path=sys.path), str(engine), str(asked), str(report), "--progress",
                 *flags] for asked, report in files]
    total = sum(len(manifest["clips"]) for manifest in manifests)
    code, lines = follow(commands, HEARD, progress, "clips", total=total)
    if code != 0:
        if code == UserError.exit_code and lines:  # a clip that cannot be read, say
            raise UserError(lines[-1].removeprefix("error: "))
        raise EnvironmentFault(f"the engine failed while being validated (exit code {code}): {' | '.join(lines)}")
    reports = [json.loads(report.read_text(encoding="utf-8")) for _, report in files]
    for asked, report in files:
        asked.unlink()
        report.unlink()
    return reports


def follow(commands: Sequence[list[str]], done: re.Pattern[str], progress: Progress, unit: str,
           total: float | None = None, environment: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Run commands, side by side, that say how far they are.

    Args:
        done: the lines by which they say that one more is done.
        total: how many there are; None if nobody knows.
        environment: None: this process's own.

    Returns:
        The exit code, of one that failed if any did, and the last of what else was said.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    reading, writing = os.pipe()  # one for all: lines are short, and each comes whole
    children: list[subprocess.Popen[bytes]] = []
    with progress(total, unit) as advance, open(reading, encoding="utf-8", errors="replace") as said:
        try:
            try:
                for command in commands:
                    with held_back():
                        children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing,
                                                         stderr=writing, env=environment))
            finally:
                os.close(writing)
            for line in said:
                if done.fullmatch(line):
                    advance(1)
                elif line.strip():
                    last.append(line.rstrip())
            codes = [child.wait() for child in children]
            return next(filter(None, codes), 0), list(last)
        except BaseException:  # an interruption, say: they must not go on alone
            for child in children:
                child.kill()
                child.wait()
            raise
