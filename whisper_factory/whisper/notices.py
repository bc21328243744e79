"""What was heard in a window, and what a listener is told about it beside the words."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_factory.whisper.decoding import Decoded


@dataclass(frozen=True)
class Heard:
    """One window of a clip: where it lies, in seconds, and what was heard in it."""

    start: float
    end: float
    decoded: Decoded


def guessed(assumed: bool) -> list[str]:
    """The first window tells a clip's language; where it told none, that is said."""
    return ["no language was detected, English is assumed; name it (--language) if it is another"] * assumed


def of_windows(heard: list[Heard], seconds: float) -> list[str]:
    """Of a clip of so many seconds: what was not heard, and where the decoder had to be stopped."""
    found = []
    if heard[-1].end < seconds:
        dropped = seconds - heard[-1].end
        found.append(f"the last {dropped:.2f} s of {seconds:.2f} s were cut off (padding_strategy=trim)")
    for part in heard:
        where = f"{part.start:.1f} to {part.end:.1f} s"
        count = len(part.decoded.tokens)
        if part.decoded.dropped:
            found.append(f"{where}: it went round in circles; {len(part.decoded.dropped)} tokens after the first round "
                         f"were left out, and words may be missing")
        elif part.decoded.circles and not part.decoded.runaway:
            found.append(f"{where}: it went round in circles, and was heard on after the first round; words may be "
                         f"missing")
        elif part.decoded.stopped == "length":
            found.append(f"{where}: stopped at {count} tokens, the most that this engine or max_new_tokens allows; "
                         f"words may be missing")
        elif part.decoded.stopped == "budget":
            found.append(f"{where}: stopped at {count} tokens, more than anyone speaks in {part.end - part.start:.1f} "
                         f"s; the end is probably invented")
        elif part.decoded.runaway:
            found.append(f"{where}: the text repeats itself; part of it is probably invented")
    return found
