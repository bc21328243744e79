"""From logits to text: OpenAI's rules for decoding without timestamps at temperature 0, greedy or by beam search.

A batch is decoded together; each window's result is the one it has alone (up to rounding inside the engine, whose
matrix products may sum in another order for another number of rows).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from whisper_factory.backends.engines import GreedyUtterance
from whisper_factory.whisper import flow, runaway, search
from whisper_factory.whisper.beam import BeamSearch
from whisper_factory.whisper.greedy import Greedy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whisper_factory.backends.engines import Places, Utterance
    from whisper_factory.whisper.tokenizer import Tokenizer

Stop = Literal["eot", "length", "budget"]


@dataclass(frozen=True)
class Decoded:
    """One window's answer."""

    tokens: list[int]  # without the prompt, the closing <|endoftext|>, and what was dropped
    text: str
    language: str | None  # None: the model knows one language only
    avg_logprob: float | None  # natural log, per token chosen, <|endoftext|> counted; None: the runtime tells none
    stopped: Stop  # by <|endoftext|>, at the length limit, or at the runaway guard's budget
    runaway: bool  # longer than anyone speaks in that time, or repeating itself
    dropped: list[int]  # tokens of a circle that had no end: the rounds after the first
    circles: int = 0  # that it was taken out of (see `circles`)


def detect_languages(utterance: Utterance, windows: int, tokenizer: Tokenizer) -> list[str]:
    """The most probable language of each window of a fresh utterance, as codes. Leaves the utterance rewound."""
    logits = utterance.decode(np.full((windows, 1), tokenizer.sot, np.int64))
    utterance.rewind()
    codes = list(tokenizer.language_tokens)
    tokens = np.asarray([tokenizer.language_tokens[code] for code in codes])
    return [codes[best] for best in logits[:, tokens].argmax(axis=1)]


def detect_language(places: Places, place: int, tokenizer: Tokenizer) -> str:
    """As `detect_languages`, of the window that was encoded into a place."""
    bias = np.full(places.n_vocab, -np.inf, np.float32)
    bias[list(tokenizer.language_tokens.values())] = 0
    (token,), _ = places.begin(place, np.array([tokenizer.sot]), bias, 1)
    return next(code for code, known in tokenizer.language_tokens.items() if known == int(token[0]))


def decode(
    utterance: Utterance,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    languages: Sequence[str | None],
    max_new_tokens: int,
    budgets: Sequence[int],
    num_beams: int = 1,
    threads: int = 1,
    said: Sequence[int] = (),
    barred: int | None = None,
) -> list[Decoded]:
    """Decode the windows of a fresh utterance, and close it.

    Args:
        prompts: of each window, all of one length.
        languages: of each window, for the result.
        max_new_tokens: the most tokens chosen for a window, <|endoftext|> counted, as OpenAI's sample_len.
        budgets: of each window, the runaway guard's (see `runaway.token_budget`).
        num_beams: 1 is greedy; else the width of the beam search (patience 1, scores divided by length).
        threads: that choose tokens, where the device does not.
        said: tokens after which decoding goes on; they are not in the result.
        barred: but not with this token.

    Returns:
        One result a window.

    Raises:
        UserError: the engine's memory for sequences is full, and none of them can go on.
    """
    limits = [min(max_new_tokens, budget) for budget in budgets]
    rules = search.Suppression(tokenizer, barred)
    found = _search(utterance, rules, tokenizer.eot, np.asarray(prompts, np.int64), said, limits, num_beams, threads)
    return [_decoded(sequence, tokenizer, language, limit, max_new_tokens)
            for sequence, language, limit in zip(found, languages, limits, strict=True)]


def begun(found: Callable[[Decoded], None], tokenizer: Tokenizer, prompt: list[int], language: str | None,
          max_new_tokens: int, budget: int, num_beams: int) -> flow.Begun:
    """A window that is decoded as by `decode`, among others that begin and end apart from it (see `flow.run`).

    Args:
        found: is told the result.
    """
    limit = min(max_new_tokens, budget)

    def tell(sequence: search.Sequenced) -> None:
        found(_decoded(sequence, tokenizer, language, limit, max_new_tokens))

    return flow.Begun(prompt, _how(num_beams, tokenizer.eot, [limit]), tell)


def _decoded(sequence: search.Sequenced, tokenizer: Tokenizer, language: str | None, limit: int, max_new_tokens: int
             ) -> Decoded:
    stopped: Stop = "eot" if sequence.ended else "length" if limit == max_new_tokens else "budget"
    mean = sequence.sum_logprob / (len(sequence.tokens) + 1)
    return answer(sequence.tokens, stopped, tokenizer, language, mean)


def _how(num_beams: int, eot: int, limits: Sequence[int]) -> Greedy | BeamSearch:
    return Greedy(eot, limits) if num_beams == 1 else BeamSearch(num_beams, eot, limits)


def answer(tokens: list[int], stopped: Stop, tokenizer: Tokenizer, language: str | None,
           avg_logprob: float | None) -> Decoded:
    """A window's answer from all that was chosen, <|endoftext|> left out."""
    kept = len(tokens) if stopped == "eot" else runaway.first_round(tokens)
    text, dropped = tokenizer.decode(tokens[:kept]).strip(), tokens[kept:]
    return Decoded(tokens=tokens[:kept], text=text, language=language, avg_logprob=avg_logprob, stopped=stopped,
                   runaway=stopped == "budget" or bool(dropped) or runaway.loops(text), dropped=dropped)


def _search(utterance: Utterance, rules: search.Suppression, eot: int, prompts: NDArray[np.int64], said: Sequence[int],
            limits: Sequence[int], num_beams: int, threads: int) -> list[search.Sequenced]:
    """What is found for each window: by the device where it can, else here, of the logits that it computes."""
    if num_beams == 1 and not said and isinstance(utterance, GreedyUtterance):
        try:
            found = utterance.greedy(prompts, rules.at_first, rules.always, eot, limits)
        finally:
            utterance.close()
        return [search.Sequenced(tokens[:-1], total, True) if tokens[-1] == eot
                else search.Sequenced(tokens, total, False) for tokens, total in found]
    how = _how(num_beams, eot, limits)
    search.run(utterance, prompts, rules, how, threads, said)
    return how.results()
