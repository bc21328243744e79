"""Rounded models on speech, in NumPy: what they hear, and how far their predictions are from the exact model's.

A model here has the integers that a checkpoint of its precision has, times their scales, in float32. Each clip is heard
in a window as short as an engine gives it, with the model's own end anchor: there rounding hurts most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_factory import threads
from whisper_factory.calibration import forward
from whisper_factory.calibration.passing import Window
from whisper_factory.calibration.speech import LONGEST_TEXT
from whisper_factory.engine_spec import Precision
from whisper_factory.errors import UserError
from whisper_factory.keeping import SENSED, hearing
from whisper_factory.progress import Advance
from whisper_factory.quantization import mixed, weight_only
from whisper_factory.quantization.mixed import Candidate
from whisper_factory.whisper.checkpoint import quantize
from whisper_factory.whisper.dimensions import Dimensions
from whisper_factory.whisper.normalize import edit_distance, words
from whisper_factory.whisper.search import Suppression
from whisper_factory.whisper.tokenizer import Tokenizer

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]

LONGER, ANYHOW = 2, 8  # times as many tokens as the text's, and so many more: what runs away is stopped, and counts


class _Spoken(NamedTuple):
    """A window in which something is said."""

    mel: Floats
    prompt: list[int]
    text: list[int]


class _View(NamedTuple):
    """What the exact model makes of a window."""

    residuals: list[Floats]
    states: Floats  # with the end anchor
    cross: forward.KeysValues
    predictions: Floats  # log-probabilities [tokens, n_vocab]


class SpokenTrial:
    """A choosing.Trial of one model: the exact one and any of its rounded ones."""

    def __init__(self, tensors: Tensors, dimensions: Dimensions, precision: Precision, windows: Sequence[Window],
                 tokenizer: Tokenizer, advance: Advance = lambda amount: None) -> None:
        """Round each layer both ways.

        Args:
            tensors: the exact model, as calibration.worker.as_stored.
            windows: one of silence, and one for each clip, whose first text is what is said in it.
            advance: told of each clip that went through a model.

        Raises:
            UserError: nothing is said in the windows.
        """
        self.exact, self.sizes, self.tokenizer, self.advance = tensors, dimensions, tokenizer, advance
        self.rules = Suppression(tokenizer)
        (self.silence,) = (window.mel for window in windows if not window.texts)
        spoken = [self._spoken(window) for window in windows if window.texts]
        self.spoken = [window for window in spoken if len(window.text) < LONGEST_TEXT]  # longer ones were cut off
        self.said = [self._words(window.text) for window in self.spoken]
        self.words, self.clips = sum(map(len, self.said)), len(self.spoken)
        if not self.words:
            raise UserError("precision.max_wer_delta: nothing is said in the clips; give calibration.clips speech")
        self.drafts = [window.text for window in self.spoken]  # until the exact model has heard them
        layers = tuple(mixed.layers(dimensions))
        self.four, self.eight = (self._rounded(replace(precision, keep=keep), layers) for keep in ((), layers))

    def errors(self, kept: Sequence[str] | None) -> int:
        """Word errors in all clips."""
        tensors = self.exact if kept is None else {
            **self.exact, **self.four, **{f"{layer}.weight": self.eight[f"{layer}.weight"] for layer in kept}}
        silence = hearing.states(forward.stem(self.silence, tensors), 0, tensors, self.sizes)

        def hear(index: int) -> list[int]:
            window = self.spoken[index]
            own = hearing.states(forward.stem(window.mel, tensors), 0, tensors, self.sizes)
            cross = self._cross(hearing.seen(own, silence, self.sizes), tensors)
            return self._transcript(window, cross, tensors, self.drafts[index])

        found = []
        for tokens in threads.ahead(hear, range(len(self.spoken))):
            found.append(tokens)
            self.advance(1)
        if kept is None:
            self.drafts = found
        return sum(edit_distance(said, self._words(tokens)) for said, tokens in zip(self.said, found, strict=True))

    def harms(self, candidates: Sequence[Candidate]) -> list[float]:
        """Kullback-Leibler divergences, the texts given, in some of the clips, taken from all over them."""
        some = self.spoken[:: -(-self.clips // SENSED)]
        silence = hearing.residuals(self.silence, self.exact, self.sizes)
        views = list(threads.ahead(lambda window: self._view(window, silence[-1]), some))
        tokens = sum(len(view.predictions) for view in views)
        found = []
        for candidate in candidates:
            harm = 0.0
            for one in threads.ahead(self._harm(candidate, silence, some, views), range(len(some))):
                harm += one
                self.advance(1)
            found.append(max(0.0, harm) / tokens)
        return found

    def _harm(self, candidate: Candidate, silence: list[Floats], some: list[_Spoken], views: list[_View]
              ) -> Callable[[int], float]:
        """The divergence in a window with a candidate at 4 bits; what comes before it is as in the exact model."""
        tensors = {**self.exact, **{f"{layer}.weight": self.four[f"{layer}.weight"] for layer in candidate}}
        half, _, block, kind, *_ = candidate[0].split(".")
        first, new_cross = int(block), half == "encoder" or kind == "cross_attn"
        anchor = hearing.states(silence[first], first, tensors, self.sizes) if half == "encoder" else None

        def harm(index: int) -> float:
            states, cross = views[index].states, views[index].cross
            if anchor is not None:
                own = hearing.states(views[index].residuals[first], first, tensors, self.sizes)
                states = hearing.seen(own, anchor, self.sizes)
            if new_cross:
                cross = self._cross(states, tensors)
            return hearing.divergence(views[index].predictions, self._predictions(some[index], cross, tensors))

        return harm

    def _view(self, window: _Spoken, silence: Floats) -> _View:
        found = hearing.residuals(window.mel, self.exact, self.sizes)
        own, anchor = (forward.layer_norm(x, self.exact, "encoder.ln_post") for x in (found[-1], silence))
        states = hearing.seen(own, anchor, self.sizes)
        cross = self._cross(states, self.exact)
        return _View(found, states, cross, self._predictions(window, cross, self.exact))

    def _predictions(self, window: _Spoken, cross: forward.KeysValues, tensors: Tensors) -> Floats:
        """Log-probabilities of each token of the text, and of its end."""
        prompt = window.prompt
        return hearing.log_softmax(hearing.logits([*prompt, *window.text], cross, tensors, self.sizes, len(prompt) - 1))

    def _transcript(self, window: _Spoken, cross: forward.KeysValues, tensors: Tensors, draft: Sequence[int]
                    ) -> list[int]:
        prompt = window.prompt

        def best(tokens: list[int], done: int) -> list[int]:
            found = hearing.logits([*prompt, *tokens], cross, tensors, self.sizes, len(prompt) - 1 + done)
            first = int(not done)
            self.rules.apply(found[:first], first=True)
            self.rules.apply(found[first:], first=False)
            found[:, self.tokenizer.timestamp_begin :] = -np.inf
            return [int(token) for token in found.argmax(axis=1)]

        limit = min(self.sizes.n_text_ctx - len(prompt), LONGER * len(window.text) + ANYHOW)
        return hearing.greedy(best, self.tokenizer.eot, limit, draft)

    def _cross(self, states: Floats, tensors: Tensors) -> forward.KeysValues:
        return forward.cross_keys_values(states, tensors, self.sizes.n_text_layer)

    def _spoken(self, window: Window) -> _Spoken:
        tokens = [int(token) for token in window.texts[0][:-1]]  # without the end
        start = len(self.tokenizer.prompt("en" if self.tokenizer.is_multilingual else None))
        return _Spoken(window.mel, tokens[:start], tokens[start:])

    def _words(self, tokens: Sequence[int]) -> list[str]:
        return words(self.tokenizer.decode(tokens))

    def _rounded(self, precision: Precision, layers: Sequence[str]) -> dict[str, Floats]:
        def rounded(layer: str) -> Floats:
            return weight_only.dequantize(*quantize(self.exact[f"{layer}.weight"], precision, layer))

        return {f"{layer}.weight": weight for layer, weight in zip(layers, threads.ahead(rounded, layers), strict=True)}
