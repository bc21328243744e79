"""What an engine is: the declaration a backend builds from, and the runtime reads back.

A backend never sees Hydra's configuration; it sees an EngineSpec. `engine.json` in every engine
directory is this, written by `EngineSpec.save`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from whisper_factory.errors import UserError
from whisper_factory.whisper.dimensions import WINDOW_FRAMES, Dimensions

ENGINE_FILE = "engine.json"
ENGINE_FORMAT = 2  # raised whenever engines of before cannot be run
LONGEST_PROMPT = 4  # <|startoftranscript|><|en|><|transcribe|><|notimestamps|>

# Below 3000 frames the decoder stops where it should when the window is this long, and longer than the clip by a margin
# that grows with what the clip is longer than this. With less behind them recordings of several sentences may end after
# the first (docs/short_windows.md).
LEAST_FRAMES = 750
MARGIN_FRAMES = 100


def safe_window(clip_frames: int) -> int:
    """Frames of the shortest window in which a clip is heard as in 3000: even, 3000 at most."""
    beyond = max(0, clip_frames - LEAST_FRAMES)
    wanted = max(LEAST_FRAMES, clip_frames + MARGIN_FRAMES + beyond)
    return min(WINDOW_FRAMES, wanted + wanted % 2)


def longest_safe_clip(window_frames: int) -> int:
    """The inverse, as far as there is one: frames of the longest clip that leaves its margin in such a window."""
    room = window_frames - MARGIN_FRAMES
    return room if room <= LEAST_FRAMES else (room + LEAST_FRAMES) // 2


KVMode = Literal["contiguous", "paged"]
PaddingStrategy = Literal["max", "trim", "nopad"]
KV_MODES: tuple[KVMode, ...] = get_args(KVMode)
PADDING_STRATEGIES: tuple[str, ...] = get_args(PaddingStrategy)


@dataclass(frozen=True)
class Precision:
    """How weights are stored. `bits` is 8 or 4 for weight-only integers, 0 for plain floats."""

    name: str  # float32, float16, int8, int4, int4_g128, int4_g32, int4_auto
    bits: int
    dtype: Literal["float32", "float16"]  # of every tensor that is not quantised
    group_size: int = 0  # neighbours of a row that share a scale; 0: the whole row
    keep: tuple[str, ...] = ()  # linear layers that have 8 bits, and a scale a row, all the same
    max_wer_delta: float | None = None  # the budget in points that chose them; None: they were named

    def bits_of(self, layer: str) -> int:
        """Bits of the weights of a linear layer, by its name (without .weight)."""
        return 8 if layer in self.keep else self.bits

    def scales_of(self, layer: str, in_features: int) -> int:
        """How many scales a row of that layer's weights has."""
        return in_features // self.group_size if self.group_size and layer not in self.keep else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data, stable under a round trip through JSON."""
        return said({**vars(self), "keep": list(self.keep)})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Precision:
        """The inverse of `to_dict`."""
        return cls(**{**data, "keep": tuple(data.get("keep", ()))})


LATER = ("group_size", "keep", "max_wer_delta", "gated_as")  # fields of a precision that the first engines did not have


def said(precision: dict[str, Any]) -> dict[str, Any]:
    """A precision's fields without later ones that say nothing: keys, locks and files from before them still hold."""
    return {name: value for name, value in precision.items() if value or name not in LATER}


@dataclass(frozen=True)
class Profile:
    """The memory/latency shape of an engine. Lengths are mel frames (100 per second)."""

    name: str
    max_batch_size: int
    max_beam_width: int
    max_input_len: int  # the longest clip accepted, in frames
    max_new_tokens: int
    padding_strategy: PaddingStrategy
    end_anchor: int  # rows of a silent window's last states that are appended below 3000 frames; 0: none
    margin_frames: int  # by how much the encoder's window is longer than max_input_len (at most 3000 in all)


@dataclass(frozen=True)
class KVCache:
    """Contiguous: allocated whole at load. Paged: grows by `tokens_per_page` tokens, from a pool of `max_pages`."""

    mode: KVMode
    tokens_per_page: int
    max_pages: int | None = None  # of one sequence each; None or 0: enough for all at their longest


@dataclass(frozen=True)
class Target:
    """The GPU that an engine is built for, and what its toolkit is asked for; the machine at hand need not have it."""

    device: str
    compute_capability: str  # "8.7"
    version: str  # of TensorRT-LLM; of TensorRT its flavour, once settled
    allow_unanchored: bool  # a short window without its end anchor, where the runtime has no place for one
    kv_cache_free_gpu_memory_fraction: float  # of the memory free at load that paged KV may take
    cross_kv_cache_fraction: float  # of that, for cross-attention (TensorRT-LLM 0.15 and later)


@dataclass(frozen=True)
class EngineSpec:
    """Everything that shapes an engine's bytes, apart from the weights."""

    model: str
    backend: str
    dimensions: Dimensions
    precision: Precision
    profile: Profile
    kv_cache: KVCache
    target: Target | None = None  # None: whatever machine it is built on

    @property
    def window_frames(self) -> int:
        """The longest encoder window this engine runs, in mel frames."""
        return min(WINDOW_FRAMES, self.profile.max_input_len + self.profile.margin_frames)

    def encoder_frames(self, clip_frames: int, strategy: PaddingStrategy) -> int:
        """How many mel frames the encoder sees for a clip: even, and at least the clip's where the engine can.

        `max`: always the engine's longest window. `nopad` and `trim`: `safe_window`, as far as the engine goes.
        """
        return self.window_frames if strategy == "max" else min(self.window_frames, safe_window(clip_frames))

    @property
    def max_rows(self) -> int:
        """Sequences decoded at once: batch times beams."""
        return self.profile.max_batch_size * self.profile.max_beam_width

    @property
    def max_tokens(self) -> int:
        """Length of the self-attention KV cache: prompt and answer, at most the model's text context."""
        return min(self.dimensions.n_text_ctx, LONGEST_PROMPT + self.profile.max_new_tokens)

    @property
    def max_cross_len(self) -> int:
        """Longest cross-attention length: encoder positions plus, below 3000 frames, the end anchor."""
        if self.window_frames < WINDOW_FRAMES:
            return self.window_frames // 2 + self.profile.end_anchor
        longest_short = (WINDOW_FRAMES - 2) // 2 + self.profile.end_anchor  # under padding_strategy=nopad
        return max(self.dimensions.n_audio_ctx, longest_short)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, stable under a round trip through JSON."""
        return {"format": ENGINE_FORMAT, **asdict(self), "precision": self.precision.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EngineSpec:
        """The inverse of `to_dict`."""
        return cls(
            model=data["model"],
            backend=data["backend"],
            dimensions=Dimensions(**data["dimensions"]),
            precision=Precision.from_dict(data["precision"]),
            profile=Profile(**data["profile"]),
            kv_cache=KVCache(**data["kv_cache"]),
            target=Target(**data["target"]) if data["target"] else None,
        )

    def save(self, directory: Path) -> None:
        """Write `engine.json` into an engine directory."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        (directory / ENGINE_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> EngineSpec:
        """Read an engine directory's `engine.json`.

        Raises:
            UserError: the directory holds no engine, or one of another format.
        """
        path = directory / ENGINE_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.get("format") != ENGINE_FORMAT:
                found = data.get("format")
                raise UserError(f"{path}: engine format {found}, this version reads {ENGINE_FORMAT}; build it again")
            return cls.from_dict(data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"'{directory}' is not an engine directory ({reason}); pass the directory that was "
                            f"printed at the end of a build, or its engine/") from error
