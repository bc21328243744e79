"""In which order rows change places, so that none is overwritten before it has been read. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def moves(sources: Sequence[int]) -> list[tuple[int, int]]:
    """Copies, in order, after which place i holds what was at sources[i]. -1 is a place to keep something meanwhile."""
    wanted = {place: source for place, source in enumerate(sources) if place != source}
    ordered = []
    while wanted:
        read = set(wanted.values())
        free = next((place for place in wanted if place not in read), None)
        if free is None:  # only cycles are left: what one place holds is put aside
            aside = next(iter(wanted))
            ordered.append((-1, aside))
            wanted = {place: -1 if source == aside else source for place, source in wanted.items()}
        else:
            ordered.append((free, wanted.pop(free)))
    return ordered
