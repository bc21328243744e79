"""What TensorRT-LLM's own converter made of tiny.en: config.json, and each tensor's dtype, shape and digest.

The keys are "0.12/tiny.en-int8-sm80/encoder"; a digest is the first 24 hex digits of the SHA-256 of the bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden_tiny.en.json").read_text(encoding="utf-8")
)
