"""Names of the files in an engine directory of this backend."""

from __future__ import annotations

LOG_MEL, ENCODER, DECODER = STAGES = ("logmel", "encoder", "decoder")  # .onnx and .weights each
ANCHOR = "end_anchor.bin"  # alone, as it is computed
VOCABULARY = "vocabulary.tiktoken"
