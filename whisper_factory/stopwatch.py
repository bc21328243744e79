"""Where a loaded engine's time goes, call by call.

A stopwatch wraps the methods of the one engine it is given, and of the utterances that come out of it; an engine
without one runs the code it always runs. What it costs is a microsecond or two a call. Where a call only sets a GPU to
work, the time is counted in the next call that waits for it. Where two batches are heard at once, a call counts half.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from whisper_factory.backends.engines import Engine, GeneratingEngine

# language: the one token by which a multilingual model tells what it hears. prompt: all that is decoded before the
# first token of the answer. tokens: one step of all rows each. generate: all of these, where the runtime or the device
# does them in one call. other: reordering rows, giving memory back.
Part = Literal["encoder", "language", "prompt", "tokens", "generate", "other"]
PLACES: dict[str, Part] = {"listen": "encoder", "begin": "prompt", "rank": "tokens"}  # methods of `engines.Places`
Result = TypeVar("Result")


@dataclass
class Work:
    """Calls of one kind."""

    count: int = 0
    seconds: float = 0.0


@dataclass
class Lap:
    """One piece of work, timed."""

    seconds: float = 0.0
    first_token: float | None = None  # seconds until the first window's first token was chosen; None: not to be seen
    parts: defaultdict[Part, Work] = field(default_factory=lambda: defaultdict(Work))


class _Calls(threading.local):
    """What one thread is in the middle of."""

    busy = False
    prompt: float | None = None  # seconds of a prompt after which nothing has been asked yet


class Stopwatch:
    """Times what an engine does. Whether a call decodes is seen by its utterance growing, whatever its name is."""

    def __init__(self, engine: Engine | GeneratingEngine) -> None:
        """
        Args:
            engine: its methods are replaced by timed ones, on this object alone.
        """
        self._lap, self._start, self._share = Lap(), 0.0, 1.0
        self._calls, self._counting = _Calls(), threading.Lock()
        target: Any = engine  # whose methods are about to be replaced
        if hasattr(target, "generate"):
            target.generate = self._timed_generate(target.generate)
        else:
            for name in ("encode", "listen"):
                if hasattr(target, name):
                    setattr(target, name, self._timed_encode(getattr(target, name)))
            if hasattr(target, "lanes"):
                target.lanes = self._timed_lanes(target.lanes)

    def time(self, work: Callable[[], Result]) -> tuple[Result, Lap]:
        """Do something with the engine: what it returned, and where its time went."""
        self._lap, self._calls.prompt, self._share = Lap(), None, 1.0
        self._start = time.perf_counter()
        result = work()
        self._lap.seconds = time.perf_counter() - self._start
        return result, self._lap

    def _timed_generate(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(generate)
        def timed(mel: Any, prompts: Any, max_new_tokens: int, num_beams: int) -> Any:
            kind: Part = "language" if max_new_tokens == 1 and prompts.shape[1] == 1 else "generate"
            return self._call(kind, partial(generate, mel, prompts, max_new_tokens, num_beams))

        return timed

    def _timed_encode(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(encode)
        def timed(*given: Any) -> Any:
            return self._watch(self._call("encoder", partial(encode, *given)))

        return timed

    def _timed_lanes(self, lanes: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(lanes)
        def timed(*given: Any) -> Any:
            found = lanes(*given)
            self._share = 1 / max(1, len(found))  # of a second in which all of them work
            for lane in found:
                lane.encode, lane.places = self._timed_encode(lane.encode), self._timed_places(lane.places)
            return found

        return timed

    def _timed_places(self, places: Callable[..., Any]) -> Callable[..., Any]:
        def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(method)
            def call(*given: Any) -> Any:
                language = name == "begin" and len(given[1]) == 1
                part: Part = "language" if language else PLACES.get(name, "other")
                result = self._call(part, partial(method, *given))
                if part == "prompt" and self._lap.first_token is None:
                    self._lap.first_token = time.perf_counter() - self._start
                return result

            return call

        @wraps(places)
        def watched(*given: Any) -> Any:
            found = self._call("other", partial(places, *given))
            for name in (*PLACES, "branch", "keep", "close"):
                setattr(found, name, timed(name, getattr(found, name)))
            return found

        return watched

    def _watch(self, utterance: Any) -> Any:
        """Time every public method of an utterance, but not what it calls of itself."""
        for name in dir(type(utterance)):
            method = None if name.startswith("_") else getattr(type(utterance), name)
            if callable(method):
                setattr(utterance, name, self._timed_method(utterance, name, getattr(utterance, name)))
        return utterance

    def _timed_method(self, utterance: Any, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*given: Any, **named: Any) -> Any:
            if self._calls.busy:
                return method(*given, **named)
            self._note_choice(name)
            before = utterance.length
            self._calls.busy, start = True, time.perf_counter()
            try:
                result = method(*given, **named)
            finally:
                self._calls.busy = False
                seconds = time.perf_counter() - start
                if name == "greedy":
                    self._count("generate", seconds)
                else:
                    self._grown(before, utterance.length, seconds)
            return self._watch(result) if name == "split" else result

        return timed

    def _note_choice(self, name: str) -> None:
        """Whatever follows a prompt comes when its token is chosen; but rewinding: then it was for the language."""
        if self._calls.prompt is None:
            return
        if name == "rewind":
            self._count("prompt", -self._calls.prompt, -1)
            self._count("language", self._calls.prompt)
        elif self._lap.first_token is None:
            self._lap.first_token = time.perf_counter() - self._start
        self._calls.prompt = None

    def _grown(self, before: int, after: int, seconds: float) -> None:
        if before == 0 < after:
            self._calls.prompt = seconds
        self._count("other" if after <= before else "tokens" if before else "prompt", seconds)

    def _call(self, kind: Part, work: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = work()
        self._count(kind, time.perf_counter() - start)
        return result

    def _count(self, kind: Part, seconds: float, calls: int = 1) -> None:
        with self._counting:
            work = self._lap.parts[kind]
            work.count, work.seconds = work.count + calls, work.seconds + seconds * self._share
