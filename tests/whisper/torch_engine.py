"""An Engine and Utterances over openai-whisper's own model, so that decoding can be compared with its, exactly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from whisper.model import ModelDimensions, Whisper

from whisper_factory.engine_spec import EngineSpec, KVCache, Precision, Profile
from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.tokenizer import Tokenizer

POSITIONS = 12  # of the encoder, in the random models


def profile(**changes: object) -> Profile:
    """A profile for tests: the batch profile, but what is changed."""
    plain = {"name": "test", "max_batch_size": 8, "max_beam_width": 5, "max_input_len": 3000, "max_new_tokens": 224,
             "padding_strategy": "max", "end_anchor": 50, "margin_frames": 0}
    return Profile(**{**plain, **changes})  # type: ignore[arg-type]


def random_model(seed: int, multilingual: bool = False, eot_bias: float = 0.0) -> Whisper:
    """A tiny random Whisper. `eot_bias` raises <|endoftext|>'s logit, so that sequences end."""
    torch.manual_seed(seed)
    sizes = ModelDimensions(80, POSITIONS, 32, 2, 1, 51865 if multilingual else 51864, 448, 32, 2, 2)
    model = Whisper(sizes).eval()
    with torch.no_grad():
        model.decoder.positional_embedding.normal_(0, 1.0)
        model.decoder.ln.weight.normal_(0, 0.5)  # of either sign: else each token asks for itself again
        eot = 50257 if multilingual else 50256
        direction = model.decoder.token_embedding.weight[eot]
        model.decoder.ln.bias += eot_bias * direction / direction.norm() ** 2
    return model


def tokenizer_of(dimensions: ModelDimensions) -> Tokenizer:
    """Our tokenizer over the rank file inside openai-whisper."""
    name = "multilingual" if dimensions.n_vocab >= 51865 else "gpt2"
    ranks = Path(whisper.__file__).parent / "assets" / f"{name}.tiktoken"
    return Tokenizer.load(ranks, Dimensions(**asdict(dimensions)))


class TorchUtterance:
    """Decodes without a KV cache: every step runs the whole sequence. Counts what it is asked for."""

    def __init__(self, model: Whisper, features: torch.Tensor) -> None:
        self.model, self.features, self.length = model, features, 0
        self.tokens = torch.zeros((len(features), 0), dtype=torch.int64)
        self.rows_decoded: list[int] = []
        self.closed = False

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        assert not self.closed
        assert tokens.dtype == np.int64
        assert tokens.shape[0] == len(self.features)
        assert self.length == 0 or tokens.shape[1] == 1
        self.tokens = torch.cat([self.tokens, torch.from_numpy(np.ascontiguousarray(tokens))], dim=1)
        self.length = self.tokens.shape[1]
        self.rows_decoded.append(len(tokens))
        with torch.no_grad():
            logits = self.model.decoder(self.tokens, self.features)[:, -1]
        return logits.float().numpy().copy()

    def select(self, rows: NDArray[np.int64]) -> None:
        self.tokens, self.features = self.tokens[rows], self.features[rows]

    def room(self, new: int, beams: int) -> int:
        return len(self.features)

    def split(self, windows: int) -> TorchUtterance:
        raise AssertionError("there is room for all")

    def rewind(self) -> None:
        self.tokens, self.length = self.tokens[:, :0], 0

    def close(self) -> None:
        self.closed = True


class ShortOfMemory(TorchUtterance):
    """As many pages for all its parts as `pool` says, [free, tokens of a page, the fewest that were free]."""

    def __init__(self, model: Whisper, features: torch.Tensor, pool: list[int]) -> None:
        super().__init__(model, features)
        self.pool, self.windows, self.held = pool, len(features), 0
        self.parts: list[ShortOfMemory] = [self]

    def _pages(self, length: int) -> int:
        return -(-length // self.pool[1])

    def _take(self) -> None:
        pages = len(self.features) * self._pages(self.length)
        if pages - self.held > self.pool[0]:
            raise UserError("full")
        self.pool[0] -= pages - self.held
        self.pool[2], self.held = min(self.pool[2], self.pool[0]), pages

    def decode(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = super().decode(tokens)
        self._take()
        return logits

    def select(self, rows: NDArray[np.int64]) -> None:
        beams = len(self.features) // self.windows
        self.windows = len(set((np.asarray(rows) // beams).tolist()))
        super().select(rows)
        self._take()

    def rewind(self) -> None:
        super().rewind()
        self._take()

    def room(self, new: int, beams: int) -> int:
        needed = beams * self._pages(self.length + new) - self.held // self.windows
        return self.windows if needed <= 0 else min(self.windows, self.pool[0] // needed)

    def split(self, windows: int) -> ShortOfMemory:
        rows = len(self.features) // self.windows * windows
        other = ShortOfMemory(self.model, self.features[rows:], self.pool)
        other.tokens, other.length, other.windows = self.tokens[rows:], self.length, self.windows - windows
        other.held, other.parts = len(other.features) * self._pages(self.length), self.parts
        self.tokens, self.features, self.windows = self.tokens[:rows], self.features[:rows], windows
        self.held -= other.held
        self.parts.append(other)
        return other

    def close(self) -> None:
        super().close()
        self.pool[0], self.held = self.pool[0] + self.held, 0


class TorchEngine:
    """Encodes with openai-whisper. `frames` remembers the shape of every batch."""

    def __init__(self, model: Whisper, spec: EngineSpec) -> None:
        self.model, self.spec, self.threads = model, spec, 2
        self.batches: list[tuple[int, int]] = []  # windows, frames

    def encode(self, mel: NDArray[np.float32]) -> TorchUtterance:
        windows, _, frames = mel.shape
        assert windows <= self.spec.profile.max_batch_size
        assert frames % 2 == 0
        assert frames <= self.spec.window_frames
        self.batches.append((windows, frames))
        # A random model hears anything: the mel's mean over stretches stands for the encoder.
        means = mel.reshape(windows, 80, -1)[:, :, : frames // POSITIONS * POSITIONS]
        means = means.reshape(windows, 80, POSITIONS, -1).mean(axis=3)
        features = np.ascontiguousarray(means.transpose(0, 2, 1)[:, :, :32]) * 3
        return TorchUtterance(self.model, torch.from_numpy(features))


def engine(seed: int = 0, multilingual: bool = False, eot_bias: float = 0.0, **changes: object) -> TorchEngine:
    """A random engine with a profile."""
    model = random_model(seed, multilingual, eot_bias)
    name = "tiny" if multilingual else "tiny.en"
    spec = EngineSpec(name, "onnxruntime", Dimensions(**asdict(model.dims)), Precision("float32", 0, "float32"),
                      profile(**changes), KVCache("contiguous", 64))
    return TorchEngine(model, spec)
