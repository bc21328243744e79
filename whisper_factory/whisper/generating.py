"""Decoding with an engine whose runtime chooses the tokens itself, a whole batch at a time (TensorRT-LLM's do).

What `decoding` does and this cannot: the runtime suppresses nothing, so signs that are not speech ("♪♪", a speaker's
tag) and an empty answer are possible here where our own search forbids them; and it tells no probabilities. The guard
against runaways is the same, but for a batch it acts late: the runtime goes on until the longest budget of the batch,
and what a window has beyond its own is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from whisper_factory.whisper.decoding import Decoded, Stop, answer

if TYPE_CHECKING:
    from whisper_factory.backends.engines import GeneratingEngine
    from whisper_factory.whisper.tokenizer import Tokenizer

FALLBACK_LANGUAGE = "en"


def detect_languages(engine: GeneratingEngine, mel: NDArray[np.float32], tokenizer: Tokenizer) -> list[str | None]:
    """The language of each window [batch, n_mels, frames], as a code: the token that follows <|startoftranscript|>.

    None where that is not a language, since the runtime may choose any token.
    """
    starts = np.full((len(mel), 1), tokenizer.sot, np.int64)
    codes = {token: code for code, token in tokenizer.language_tokens.items()}
    return [codes.get(tokens[0]) if tokens else None for tokens in engine.generate(mel, starts, 1, 1)]


def decode(
    engine: GeneratingEngine,
    mel: NDArray[np.float32],
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    languages: Sequence[str | None],
    max_new_tokens: int,
    budgets: Sequence[int],
    num_beams: int = 1,
) -> list[Decoded]:
    """Encode and decode windows [batch, n_mels, frames]. The other arguments are `decoding.decode`'s.

    Returns:
        One result a window, without its probability.
    """
    limits = [min(max_new_tokens, budget) for budget in budgets]
    found = engine.generate(mel, np.asarray(prompts, np.int64), max(limits), num_beams)
    results = []
    for chosen, language, limit in zip(found, languages, limits, strict=True):
        tokens = chosen[:limit]
        stopped: Stop = "eot" if len(chosen) < limit else "length" if limit == max_new_tokens else "budget"
        results.append(answer(tokens, stopped, tokenizer, language, avg_logprob=None))
    return results
