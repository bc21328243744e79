"""What validation hears with an engine: its clips, alone and timed, and edge recordings, whose latency nobody asks.

On the CPU the edge recordings are heard side by side, by processes of their own that need no quiet: all but the first,
the longest, with which the process that is measured takes as much memory as it does with any.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from whisper_factory.engine_spec import EngineSpec
from whisper_factory.progress import Progress, silent
from whisper_factory.steps.closing import Closing
from whisper_factory.steps.listening import Ears, side_by_side
from whisper_factory.threads import physical_cores

SIDE_BY_SIDE = "onnxruntime"  # the backend whose engines share nothing but cores


class Audition(Closing):
    """An engine being heard, from now on."""

    def __init__(self, engine: Path, requests: list[dict[str, Any]], scratch: Path, beside: bool = False) -> None:
        """
        Args:
            requests: see `listening.clip_requests`.
            scratch: a directory that is not there; nor is it when this is closed.
            beside: other work goes on that has processes for all cores: one more is enough.
        """
        spec = EngineSpec.load(engine)
        edge = [index for index, request in enumerate(requests) if request["edge"]]
        processes = side_by_side(spec) if spec.backend == SIDE_BY_SIDE else 1
        self._engine, self._requests, self._scratch = engine, requests, scratch
        self._apart = edge[1:] if processes > 1 else []
        with ExitStack() as stack:
            scratch.mkdir(parents=True)
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)  # when nobody writes into it any more
            self._alone = stack.enter_context(Ears(spec.backend))
            if self._apart:
                self._others = stack.enter_context(Ears(spec.backend, 1 if beside else processes))
                self._others.ask(engine, [requests[index] for index in self._apart], self._scratch, batch=1,
                                 threads=max(1, physical_cores() // processes))
            self._open = stack.pop_all()

    def close(self) -> None:
        """End the processes, and remove what they left."""
        self._open.close()

    def report(self, repeats: int, progress: Progress = silent) -> dict[str, Any]:
        """What was heard, as `measure` reports it; what was measured is of the process that heard alone.

        Args:
            repeats: of each clip, for its latency.

        Raises:
            as `Ears.listen`.
        """
        rows = dict(zip(self._apart, self._others.answer(progress) if self._apart else [], strict=True))
        left = [index for index in range(len(self._requests)) if index not in rows]
        left.sort(key=lambda index: not self._requests[index]["edge"])  # nobody asks how long these take: they warm up
        report = self._alone.listen(self._engine, [self._requests[index] for index in left], self._scratch, repeats,
                                    progress, warm_up=not self._requests[left[0]]["edge"])
        rows |= zip(left, report["clips"], strict=True)
        return {**report, "clips": [rows[index] for index in range(len(rows))]}
