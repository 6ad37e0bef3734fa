"""Images that never arrived, told by the numbers of those that did."""

from __future__ import annotations

import pytest

from d4rt_ros.node.gaps import Gaps


def counted(*numbers: int) -> Gaps:
    gaps = Gaps()
    for number in numbers:
        gaps.take(number)
    return gaps


@pytest.mark.parametrize(
    ("numbers", "missed", "turns"),
    [
        ((7, 8, 9), 0, 0),  # who comes late has missed nothing
        ((1, 2, 5, 9), 5, 0),
        ((900, 901, 1, 2, 4), 1, 1),  # a camera that was started anew
        ((100, 5000, 101, 5001, 102, 5002), 0, 2),  # two in turn
        ((100, 5000, 103, 5001, 104, 5004), 4, 2),  # and what each of them really lost
        ((5000, 100, 5001, 101, 103, 5002), 1, 2),
        ((10, 11, 14, 15, 16), 2, 0),
        ((10, 500, 300, 11, 501, 301), 0, 3),  # three
    ],
)
def test_what_is_missing(numbers: tuple[int, ...], missed: int, turns: int) -> None:
    gaps = counted(*numbers)
    assert gaps.missed == missed
    assert gaps.turns == turns


def test_publishers_that_come_and_go_are_forgotten() -> None:
    gaps = counted(*(number for start in range(1000, 0, -100) for number in (start, start + 1)))
    assert gaps.missed == 0
    assert gaps.turns == 9
    assert len(gaps._ends) == 4


@pytest.mark.parametrize("number", [None, 2**64 - 1])
def test_without_numbers_nothing_is_said(number: int | None) -> None:
    gaps = Gaps()
    gaps.take(number)
    assert gaps.missed is None and gaps.newest is None and gaps.turns == 0
