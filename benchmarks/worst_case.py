"""An engine at its worst, in this process: `python benchmarks/worst_case.py ENGINE` prints bytes as JSON.

As many windows as it takes (of several three times as many: two batches may be heard at once, and others begin as they
end), all of the longest audio, all beams, answers of the full length: <|endoftext|> is forbidden. Imports what running
an engine imports, and nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from whisper_factory import backends, clips, resident
from whisper_factory.engine_spec import EngineSpec
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import HOP_LENGTH
from whisper_factory.whisper.options import Options
from whisper_factory.whisper.transcribe import Transcriber


def worst_case(engine: Path) -> dict[str, int]:
    """What an engine takes above the libraries, in bytes: loaded, while loading, and at its peak."""
    spec = EngineSpec.load(engine)
    speech = np.concatenate([read_audio(clip.path) for clip in clips.bundled("full")])
    length = spec.profile.max_input_len * HOP_LENGTH
    windows = spec.profile.max_batch_size * (3 if spec.profile.max_batch_size > 1 else 1)
    audio = [speech[start * length // 2 :][:length] for start in range(windows)]  # as they lie: once a large block has
    # been freed, glibc keeps others of its size, which loading leaves behind
    meter = resident.Meter(backends.get(spec.backend).LIBRARIES)
    transcriber = Transcriber.load(engine)
    meter.loaded()
    vars(transcriber.tokenizer)["suppressed_tokens"] = (*transcriber.tokenizer.suppressed_tokens,
                                                        transcriber.tokenizer.eot)
    with mock.patch("whisper_factory.whisper.transcribe.token_budget", return_value=10_000):
        found = transcriber.transcribe(audio, Options(num_beams=spec.profile.max_beam_width))
    assert all(heard.decoded.stopped == "length" for transcript in found for heard in transcript.windows)
    measured = meter.read()
    return {"load": measured.loaded - measured.baseline, "load_peak": measured.load_peak - measured.baseline,
            "peak": measured.peak - measured.baseline}


if __name__ == "__main__":
    print(json.dumps(worst_case(Path(sys.argv[1]))))
