"""OpenAI's own model over a checkpoint's weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from whisper.model import ModelDimensions, Whisper

from whisper_factory.whisper.checkpoint import Checkpoint


def openai_model(checkpoint: Path) -> Whisper:
    """openai-whisper's classes holding a checkpoint's weights (dequantised), in float32."""
    opened = Checkpoint.open(checkpoint)
    model = Whisper(ModelDimensions(**asdict(opened.dimensions))).eval().requires_grad_(False)
    state = {name: torch.from_numpy(np.array(opened.tensor(name), np.float32)) for name in model.state_dict()}
    model.load_state_dict(state)
    return model


def encode_short(model: Whisper, mel: NDArray[np.float32], anchor: NDArray[np.float32]) -> torch.Tensor:
    """OpenAI's AudioEncoder.forward step by step on windows of any length, then the anchor's rows."""
    encoder = model.encoder
    x = torch.nn.functional.gelu(encoder.conv1(torch.from_numpy(mel)))
    x = torch.nn.functional.gelu(encoder.conv2(x)).permute(0, 2, 1)
    x = x + encoder.positional_embedding[: x.shape[1]]
    for block in encoder.blocks:
        x = block(x)
    rows = torch.from_numpy(anchor).expand(len(mel), -1, -1)
    return torch.cat([encoder.ln_post(x), rows], dim=1)


def next_logits(model: Whisper, tokens: NDArray[np.int64], states: torch.Tensor) -> NDArray[np.float32]:
    """Logits after the last of tokens [rows, n], the whole sequence at once, without a KV cache."""
    logits: NDArray[np.float32] = model.decoder(torch.from_numpy(tokens), states)[:, -1].numpy()
    return logits
