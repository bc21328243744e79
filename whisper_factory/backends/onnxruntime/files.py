"""Names of the files in an engine directory of this backend."""

from __future__ import annotations

ENCODER = "encoder"  # encoder.onnx and encoder.weights
DECODER = "decoder"  # decoder.onnx and decoder.weights
EMBEDDING = "token_embedding.weights"  # alone, as the runtime reads rows of it
ANCHOR = "end_anchor.bin"  # alone, as it is computed: every other file has the same bytes on every machine
VOCABULARY = "vocabulary.tiktoken"
