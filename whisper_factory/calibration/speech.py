"""Clips to windows: what the encoder sees of each, and which tokens the decoder is taught for it.

Each clip once in a window as short as an engine would give it, then clips joined until they fill 30 s, then, where few
clips are of a word or two, the beginnings of others with silence after them: so that both kinds of windows, short and
long texts, and every position take part; and one window of silence, of which engines make their end anchor. Where
nobody says what a clip's text is, the exact model's own transcript teaches.

A decoder that only ever saw right texts does not know how to get out of a wrong one: with each clip it is also fed the
text twice, another clip's text, and texts that go round in circles, most of them at their end. What it is to do there
is what the exact model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whisper_factory import threads
from whisper_factory.calibration import forward
from whisper_factory.calibration.clips import Speech
from whisper_factory.calibration.passing import Window
from whisper_factory.engine_spec import LEAST_FRAMES, MARGIN_FRAMES
from whisper_factory.whisper.audio import read_audio
from whisper_factory.whisper.dimensions import HOP_LENGTH, SAMPLE_RATE, WINDOW_FRAMES, Dimensions
from whisper_factory.whisper.logmel import log_mel
from whisper_factory.whisper.search import Suppression
from whisper_factory.whisper.tokenizer import Tokenizer

Floats = NDArray[np.float32]

JOINED = 4  # windows of clips one after the other
SHORT, FEW = 16, 10  # windows of few tokens that there are to be; of other clips the beginning is heard, if need be
SHORTEST, SHORT_ENOUGH = 0.5, 2.5  # seconds of a beginning
CIRCLES = 8  # times that some words of a text are repeated at most; twice at least
ENDINGS = 2  # texts of a clip whose last one to three tokens are repeated: there most circles begin
LONGEST_BEFORE, LONGEST_CIRCLING = 60, 120  # tokens of such a text before its circle, and with it
LONGEST_TEXT = 200  # tokens that a window teaches at most
FASTEST = 8.0  # tokens a second: a transcript that is longer goes round in circles
PART = 3  # of what a clip is longer than LEAST_FRAMES its margin is longer, beside MARGIN_FRAMES
SILENCE = (-10.0 + 4.0) / 4.0  # log-mel of no sound at all


@dataclass(frozen=True)
class Heard:
    """A clip with its tokens, without prompt and end; and the language of its prompt."""

    name: str
    audio: Floats
    tokens: list[int]
    language: str | None


def windows(speech: Sequence[Speech], tensors: Mapping[str, Floats], dimensions: Dimensions, tokenizer: Tokenizer,
            seed: int, advance: Callable[[float], None] = lambda amount: None) -> list[Window]:
    """All windows of a calibration.

    Args:
        speech: clips that can be read; of a longer one the first 30 s count, and the exact model's transcript of them.
        tensors: the exact model.
        seed: decides which clips are joined, and where they are cut.
        advance: told of each clip.

    Raises:
        UserError: a clip cannot be read.
    """
    teacher = _Teacher(tensors, dimensions, tokenizer)
    heard = []
    for found in threads.ahead(teacher.hear, speech):
        heard.append(found)
        advance(1)

    rng = np.random.Generator(np.random.PCG64(seed))
    window = partial(_window, tokenizer, dimensions.n_mels)
    silence = Window("silence", np.full((dimensions.n_mels, WINDOW_FRAMES), SILENCE, np.float32), ())
    joined = [window(parts, WINDOW_FRAMES) for parts in _joined(heard, rng)]
    alone = [window([one], _frames(one.audio), _wrong(one.tokens, heard[place - 1].tokens, rng))
             for place, one in enumerate(heard)]
    missing = max(0, SHORT - sum(len(one.tokens) <= FEW for one in heard))
    cut = [_beginning(one, rng) for one in heard[:: max(1, len(heard) // SHORT)][:missing]]
    short = [window([one], _frames(one.audio), _wrong(one.tokens, heard[place].tokens, rng))
             for place, one in enumerate(cut)]
    return [silence, *alone, *joined, *short]


def _window(tokenizer: Tokenizer, n_mels: int, parts: Sequence[Heard], frames: int,
            wrong: Sequence[list[int]] = ()) -> Window:
    """Clips one after the other, with their text, and others that are wrong."""
    audio, right = np.concatenate([part.audio for part in parts]), [token for part in parts for token in part.tokens]
    prompt = tokenizer.prompt(parts[0].language)
    return Window("+".join(part.name for part in parts), log_mel(audio, n_mels, frames),
                  tuple(np.asarray([*prompt, *text[:LONGEST_TEXT], tokenizer.eot], np.int64)
                        for text in (right, *wrong)))


def _beginning(whole: Heard, rng: np.random.Generator) -> Heard:
    """A second or two of a clip, with about as many of its tokens: all that matters is what the exact model makes of
    them."""
    length = min(len(whole.audio), int(rng.uniform(SHORTEST, SHORT_ENOUGH) * SAMPLE_RATE))
    tokens = whole.tokens[: max(1, round(len(whole.tokens) * length / len(whole.audio)))]
    return Heard(f"{whole.name}, its beginning", whole.audio[:length], tokens, whole.language)


def _wrong(tokens: list[int], others: list[int], rng: np.random.Generator) -> list[list[int]]:
    """A text twice, another's, one that goes round in circles of one to four tokens from somewhere on, and some that
    do so with what they end in."""
    start, length = int(rng.integers(max(1, len(tokens)))), int(rng.integers(1, 5))
    circle = tokens[start : start + length]
    found = [tokens * 2, others, tokens[:start] + int(rng.integers(2, CIRCLES + 1)) * circle]
    for _ in range(ENDINGS):
        last = tokens[-int(rng.integers(1, 4)) :]
        found.append((tokens[:LONGEST_BEFORE] + int(rng.integers(2, CIRCLES + 1)) * last)[:LONGEST_CIRCLING])
    return found


def _frames(audio: Floats) -> int:
    """The window that an engine gives a clip; of a clip beyond 7.5 s a shorter one, with which the integers were
    measured."""
    clip = -(-len(audio) // HOP_LENGTH)
    beyond = max(0, clip - LEAST_FRAMES)
    wanted = max(LEAST_FRAMES, clip + MARGIN_FRAMES - (-beyond // PART))
    return min(WINDOW_FRAMES, wanted + wanted % 2)


def _joined(heard: Sequence[Heard], rng: np.random.Generator) -> list[list[Heard]]:
    """Clips of one language, in a random order, put together as long as they fit."""
    order = [heard[place] for place in rng.permutation(len(heard))]
    order.sort(key=lambda one: one.language or "")
    groups: list[list[Heard]] = []
    room = 0
    for one in order:
        if not groups or len(one.audio) > room or groups[-1][0].language != one.language:
            groups.append([])
            room = (WINDOW_FRAMES - MARGIN_FRAMES) * HOP_LENGTH
        groups[-1].append(one)
        room -= len(one.audio)
    return groups[:JOINED]


class _Teacher:
    """The exact model: it hears what nobody has written down."""

    def __init__(self, tensors: Mapping[str, Floats], dimensions: Dimensions, tokenizer: Tokenizer) -> None:
        self.tensors, self.dimensions, self.tokenizer = tensors, dimensions, tokenizer
        self.rules = Suppression(tokenizer)

    def hear(self, speech: Speech) -> Heard:
        """A clip and its tokens."""
        audio = read_audio(speech.path)
        longest = WINDOW_FRAMES * HOP_LENGTH
        multilingual = self.tokenizer.is_multilingual
        if speech.text and len(audio) <= longest and (speech.language or not multilingual):
            return Heard(speech.name, audio, self.tokenizer.encode(f" {speech.text}"), speech.language)
        audio = audio[:longest]
        sizes = self.dimensions
        mel = log_mel(audio, sizes.n_mels, WINDOW_FRAMES)
        seen = forward.encode(mel, self.tensors, sizes.n_audio_layer, sizes.n_audio_head)
        cross = forward.cross_keys_values(seen, self.tensors, sizes.n_text_layer)
        language = (speech.language or self._language(cross)) if multilingual else None
        if speech.text and len(audio) < longest:
            return Heard(speech.name, audio, self.tokenizer.encode(f" {speech.text}"), language)
        return Heard(speech.name, audio, self._transcript(cross, language, len(audio) / longest * 30), language)

    def _logits(self, tokens: Sequence[int], cross: forward.KeysValues) -> Floats:
        """Of what follows the tokens [1, n_vocab]."""
        sizes = self.dimensions
        states = forward.decode(np.asarray(tokens, np.int64), cross, self.tensors, sizes.n_text_head)
        found: Floats = states[-1:] @ self.tensors["decoder.token_embedding.weight"].T
        return found

    def _language(self, cross: forward.KeysValues) -> str:
        logits = self._logits([self.tokenizer.sot], cross)[0]
        return max(self.tokenizer.language_tokens, key=lambda code: logits[self.tokenizer.language_tokens[code]])

    def _transcript(self, cross: forward.KeysValues, language: str | None, seconds: float) -> list[int]:
        prompt, tokens = self.tokenizer.prompt(language), list[int]()
        limit = min(LONGEST_TEXT, int(1 + FASTEST * seconds))
        while len(tokens) < limit:
            logits = self._logits([*prompt, *tokens], cross)
            self.rules.apply(logits, first=not tokens)
            logits[:, self.tokenizer.timestamp_begin:] = -np.inf
            token = int(logits[0].argmax())
            if token == self.tokenizer.eot:
                break
            tokens.append(token)
        return tokens
