"""What is open for a block, and closed by its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

Self = TypeVar("Self", bound="Closing")


class Closing(ABC):
    """Something that holds processes: they do not outlive a block of it, whatever ends that."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End them, and let go of what else is held. A second time does nothing."""
