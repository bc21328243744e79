"""Names of the files in a packed checkpoint and in an engine directory of this backend."""

from __future__ import annotations

STAGES = ("encoder", "decoder")  # encoder.onnx and encoder.weights; encoder.engine and encoder.log
ANCHOR = "end_anchor.bin"  # alone, as it is computed
VOCABULARY = "vocabulary.tiktoken"
REPORT = "build.json"
