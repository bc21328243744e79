"""Out of a circle: a window whose decoder went round without an end is heard on from the first round.

There the next round may not begin. Whatever else the model says then is taken: mostly that it is at the end, in a long
window often the words that the circle had kept from being heard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from whisper_factory.whisper import runaway
from whisper_factory.whisper.decoding import Decoded, decode

if TYPE_CHECKING:
    from whisper_factory.backends.engines import Utterance
    from whisper_factory.whisper.tokenizer import Tokenizer

ATTEMPTS = 3  # after so many circles what is left is a runaway


def heard_on(encode: Callable[[], Utterance], tokenizer: Tokenizer, prompt: Sequence[int], found: Decoded,
             max_new_tokens: int, budget: int, num_beams: int = 1, threads: int = 1) -> Decoded:
    """A window's answer without the circles that it ended in; as it is if it did not.

    Args:
        encode: the window alone, anew.
        found: what `decoding.decode` made of it. The other arguments are those it was given for this window.

    Returns:
        With `circles` counted. Its probability is that of what was said after the last of them.

    Raises:
        UserError: the engine's memory for sequences is too small for it.
    """
    while found.dropped and found.circles < ATTEMPTS and len(found.tokens) < min(max_new_tokens, budget):
        said = len(found.tokens)
        rest, = decode(encode(), tokenizer, [prompt], [found.language], max_new_tokens - said, [budget - said],
                       num_beams, threads, found.tokens, barred=found.dropped[0])
        tokens = [*found.tokens, *rest.tokens]
        text = tokenizer.decode(tokens).strip()
        found = replace(rest, tokens=tokens, text=text, circles=found.circles + 1,
                        runaway=rest.stopped == "budget" or bool(rest.dropped) or runaway.loops(text))
    return found
