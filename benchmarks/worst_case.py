"""An engine at its worst, in this process: `python benchmarks/worst_case.py ENGINE` prints bytes as JSON.

As many windows as it takes (of several four times as many: two batches may be heard at once, and others begin as they
end), all of the longest audio, all beams, answers of the full length: <|endoftext|> is forbidden. Two batches go on
side by side: how far one is ahead is the machine's affair otherwise, and with it what both hold at once. Imports what
running an engine imports, and nothing else.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from whisper_factory import backends, clips, resident
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.threads import physical_cores
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import HOP_LENGTH
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.transcribe import Transcriber


def side_by_side(lanes: list[Any]) -> list[Any]:
    """Lanes that wait for each other before each window and each token: all have as many of both."""
    meeting = threading.Barrier(max(1, len(lanes)), timeout=600)
    for lane in lanes:
        lane.places = _meeting(lane.places, meeting)
    return lanes


def _meeting(places: Any, meeting: threading.Barrier) -> Any:
    def opened(*given: Any) -> Any:
        found = places(*given)
        for name in ("listen", "rank"):
            setattr(found, name, _after(meeting, getattr(found, name)))
        return found

    return opened


def _after(meeting: threading.Barrier, work: Any) -> Any:
    def waited(*given: Any) -> Any:
        meeting.wait()
        return work(*given)

    return waited


def worst_case(engine: Path) -> dict[str, int]:
    """What an engine takes above the libraries, in bytes: loaded, while loading, and at its peak."""
    spec = EngineSpec.load(engine)
    speech = np.concatenate([read_audio(clip.path) for clip in clips.bundled("full")])
    length = spec.profile.max_input_len * HOP_LENGTH
    windows = spec.profile.max_batch_size * (4 if spec.profile.max_batch_size > 1 else 1)
    audio = [speech[start * length // 2 :][:length] for start in range(windows)]  # as they lie: once a large block has
    # been freed, glibc keeps others of its size, which loading leaves behind
    meter = resident.Meter(backends.get(spec.backend).LIBRARIES)
    transcriber = Transcriber.load(engine, max(2, physical_cores()))
    meter.loaded()
    if lanes := getattr(transcriber.engine, "lanes", None):
        vars(transcriber.engine)["lanes"] = lambda stopped: side_by_side(lanes(stopped))
    vars(transcriber.tokenizer)["suppressed_tokens"] = (*transcriber.tokenizer.suppressed_tokens,
                                                        transcriber.tokenizer.eot)
    with mock.patch("whisper_factory.whisper.hearing.token_budget", return_value=10_000):
        found = transcriber.transcribe(audio, Options(num_beams=spec.profile.max_beam_width))
    assert all(heard.decoded.stopped == "length" for transcript in found for heard in transcript.windows)
    measured = meter.read()
    return {"load": measured.loaded - measured.baseline, "load_peak": measured.load_peak - measured.baseline,
            "peak": measured.peak - measured.baseline}


if __name__ == "__main__":
    print(json.dumps(worst_case(Path(sys.argv[1]))))
