"""Running an engine on clips in a process of its own, as validation does it.

A fresh process is what makes load time and peak memory the user's, and keeps an engine that crashes from
taking the factory along.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from whisper_factory import memory
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.progress import Progress, silent
from whisper_factory.steps.children import Children
from whisper_factory.steps.closing import Closing
from whisper_factory.threads import physical_cores

PROCESSES = 2
HEARD = re.compile(r"heard \d+ of \d+\n")  # a line of `measure --progress`
# With this process's own search path: `-m` would put the working directory, and what lies there, in front.
CHILD = "import sys; sys.path[:] = {path!r}; from whisper_factory import measure; measure.when_told({backend!r})"


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


def side_by_side(spec: EngineSpec) -> int:
    """How many processes share what is to be heard: two, if half of this machine's memory is enough for both."""
    host = memory.host_memory() or 0
    return PROCESSES if physical_cores() >= PROCESSES and 2 * PROCESSES * memory.estimate(spec).peak <= host else 1


def dealt(count: int, hands: int) -> list[list[int]]:
    """Places 0 to count - 1, dealt out to and fro; hands that stay empty are left out.

    By turns edge recordings are of one clip and of several: none is to get all the longer ones.
    """
    found: list[list[int]] = [[] for _ in range(hands)]
    for place in range(count):
        turn, at = divmod(place, hands)
        found[hands - 1 - at if turn % 2 else at].append(place)
    return [hand for hand in found if hand]


class Ears(Closing):
    """Processes that hear, started before it is known what: they import what that takes, and wait.

    What they are asked is answered once.
    """

    def __init__(self, backend: str, count: int = 1) -> None:
        """
        Args:
            backend: of the engine that will be heard with.
        """
        self.backend = backend
        command = [sys.executable, "-c", CHILD.format(path=sys.path, backend=backend)]
        self._children = Children([command] * count, told=True)
        self._files: list[tuple[Path, Path]] = []  # what each is asked, and its report
        self._shares: list[list[int]] = []  # which of the clips each is asked

    def close(self) -> None:
        """End them."""
        self._children.close()

    def listen(self, engine: Path, requests: list[dict[str, Any]], scratch: Path, repeats: int,
               progress: Progress = silent, warm_up: bool = True) -> dict[str, Any]:
        """Transcribe the clips, one at a time, in one process; `measure`'s report.

        Args:
            progress: of the clips.
            warm_up: hear the first once more, before it is timed.

        Raises:
            UserError: a clip cannot be read.
            EnvironmentFault: the child failed; carries its last lines.
        """
        self._shares = [list(range(len(requests)))]
        self._ask(engine, [{"clips": requests, "warm_up": warm_up}], scratch, ["--repeats", str(repeats)])
        (report,) = self._answers(progress)
        return report

    def ask(self, engine: Path, requests: list[dict[str, Any]], scratch: Path, batch: int,
            threads: int | None = None) -> None:
        """Have all of them hear the clips, as soon as may be: they share them and this machine's cores.

        (Two on one core each hear more than one on two: nothing waits for another thread.)

        Args:
            batch: clips given to the engine at once.
            threads: of each; None: all cores.
        """
        count = len(self._children)
        self._shares = dealt(len(requests), count)
        manifests = [{"clips": [requests[place] for place in share], "batch": batch, "warm_up": False}
                     for share in self._shares]
        self._ask(engine, manifests, scratch, ["--threads", str(threads or max(1, physical_cores() // count))])

    def answer(self, progress: Progress = silent) -> list[dict[str, Any]]:
        """What they heard: `measure`'s reports of the clips, their latencies meaningless.

        Raises:
            as `listen`.
        """
        clips: dict[int, dict[str, Any]] = {}
        for share, report in zip(self._shares, self._answers(progress), strict=True):
            clips.update(zip(share, report["clips"], strict=True))
        return [clips[place] for place in range(len(clips))]

    def _ask(self, engine: Path, manifests: list[dict[str, Any]], scratch: Path, flags: list[str]) -> None:
        lines = []
        for number, manifest in enumerate(manifests):
            asked, report = scratch / f"requests{number}.json", scratch / f"report{number}.json"
            asked.write_text(json.dumps(manifest), encoding="utf-8")
            self._files.append((asked, report))
            lines.append(json.dumps([str(engine), str(asked), str(report), "--progress", *flags]) + "\n")
        self._children.tell(lines)

    def _answers(self, progress: Progress) -> list[dict[str, Any]]:
        code, lines = self._children.follow(HEARD, progress, "clips", sum(map(len, self._shares)))
        if code != 0:
            if code == UserError.exit_code and lines:  # a clip that cannot be read, say
                raise UserError(lines[-1].removeprefix("error: "))
            raise EnvironmentFault(f"the engine failed while being validated (exit code {code}): {' | '.join(lines)}")
        reports = [json.loads(report.read_text(encoding="utf-8")) for _, report in self._files]
        for asked, report in self._files:
            asked.unlink()
            report.unlink()
        return reports
