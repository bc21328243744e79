"""The ten numbers that define a Whisper model, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 16_000
HOP_LENGTH = 160  # samples per mel frame: 100 frames per second
N_FFT = 400
WINDOW_FRAMES = 3000  # the 30 s window that Whisper was trained on
VOCABULARIES = (51864, 51865, 51866)  # tokens: English-only, multilingual, and large-v3's with Cantonese


@dataclass(frozen=True)
class Dimensions:
    """A Whisper model's sizes, named as in OpenAI's checkpoints."""

    n_mels: int
    n_audio_ctx: int  # encoder positions of a full window: 1500
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int  # decoder positions: 448
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def __post_init__(self) -> None:
        wrong = [f"{name}={size}" for name, size in vars(self).items() if size < 1]
        if wrong:
            raise ValueError(f"not a Whisper model's dimensions: {', '.join(wrong)}")

    @property
    def is_multilingual(self) -> bool:
        """English-only models have the GPT-2 vocabulary, one token smaller."""
        return self.n_vocab > VOCABULARIES[0]

    @property
    def num_languages(self) -> int:
        """How many language tokens the vocabulary holds (99; 100 for large-v3, with Cantonese)."""
        return self.n_vocab - 51765 - int(self.is_multilingual)  # what remains beside text, tasks and timestamps

    @property
    def head_size(self) -> int:
        """Width of one attention head (64 in every released model)."""
        return self.n_text_state // self.n_text_head
