"""Which of a topic's messages never arrived, by the numbers that publishers give to theirs."""

from __future__ import annotations

_PUBLISHERS = 4  # as many are told apart
_NO_NUMBER = 2**64 - 1  # what rmw says instead of a number; rclpy may say None, Humble's nothing


class Gaps:
    """Counts the numbers left out. Every publisher counts from 1, and does not say who it is.

    So a number goes on from the nearest one below it. One that comes to lie within the last gap shows that
    this gap was none, but the way to another publisher's numbers.

    Attributes:
        missed: messages left out; None where the middleware numbers none.
        turns: how often numbers went back: once for a publisher that starts anew, again and again where
            several send in turn.
    """

    def __init__(self) -> None:
        """Nothing has come."""
        self.missed: int | None = None
        self.turns = 0
        self._ends: list[int] = []  # of each publisher, the last heard of at the end
        self._gap = (0, 0)  # the last one that was counted: the numbers round it

    @property
    def newest(self) -> int | None:
        """The number of the last message, if it had one."""
        return self._ends[-1] if self._ends else None

    def take(self, number: int | None) -> None:
        """Hear of a message that arrived, with its number."""
        if number is None or number >= _NO_NUMBER:
            return
        missed = self.missed or 0
        self.turns += self.newest is not None and number < self.newest
        low, high = self._gap
        if low < number < high:
            missed -= high - low - 1
            self._ends.append(low)
            self._gap = (0, 0)
        before = max((end for end in self._ends if end < number), default=None)
        if before is not None:
            self._ends.remove(before)
            if number - before > 1:
                missed += number - before - 1
                self._gap = (before, number)
        self._ends = [*self._ends, number][-_PUBLISHERS:]
        self.missed = missed
