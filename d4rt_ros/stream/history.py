"""The newest results by stamp, for requests about what was just seen."""

from __future__ import annotations

from collections.abc import Iterator

from d4rt_ros.stream.results import WindowResult


class NotHeld(LookupError):
    """No held window answers for the asked stamps; the message says what is held."""


class History:
    """The newest windows. One thread adds; any thread reads, without a lock.

    Args:
        size: windows kept.
    """

    def __init__(self, size: int) -> None:
        """Hold nothing yet."""
        self._size = size
        self._held: tuple[WindowResult, ...] = ()  # oldest first; replaced as a whole, never changed

    def __len__(self) -> int:
        """Number of windows held."""
        return len(self._held)

    def __iter__(self) -> Iterator[WindowResult]:
        """The windows, oldest first."""
        return iter(self._held)

    @property
    def newest(self) -> WindowResult | None:
        """The newest window; None before the first."""
        held = self._held
        return held[-1] if held else None

    @property
    def span(self) -> tuple[int, int] | None:
        """Oldest and newest stamp held, nanoseconds."""
        held = self._held
        return (min(r.stamps[0] for r in held), held[-1].stamps[-1]) if held else None

    def add(self, result: WindowResult) -> None:
        """Hold this window as the newest; gives up the oldest beyond the size."""
        self._held = (*self._held, result)[-self._size :]

    def shorten(self) -> None:
        """Give up all windows but the newest, to make room on the device."""
        self._held = self._held[-1:]

    def clear(self) -> None:
        """Give up all windows."""
        self._held = ()

    def find(self, *stamps: int) -> tuple[WindowResult, tuple[int, ...]]:
        """The newest window that holds all of these stamps.

        Args:
            stamps: nanoseconds, each exactly that of an image; 0 is the newest frame that is held.

        Returns:
            The window's result, and the frame index 0..T-1 of each stamp in it.

        Raises:
            NotHeld: the message names the stamp and the span that is held.
        """
        held = self._held
        if not held:
            raise NotHeld("no window is held yet: too few frames came since the start or the last reset")
        asked = [stamp or held[-1].stamps[-1] for stamp in stamps]
        for result in reversed(held):
            if all(stamp in result.stamps for stamp in asked):
                return result, tuple(result.stamps.index(stamp) for stamp in asked)
        known = sorted({stamp for result in held for stamp in result.stamps})
        spans = f"held are {len(held)} windows from {seconds(known[0])} to {seconds(known[-1])}"
        for stamp in asked:
            if not known[0] <= stamp <= known[-1]:
                raise NotHeld(f"stamp {seconds(stamp)} is not in a held window; {spans}")
            if stamp not in known:
                near = min(known, key=lambda k, s=stamp: abs(k - s))  # type: ignore[misc]
                raise NotHeld(
                    f"stamp {seconds(stamp)} is not that of a held frame, the nearest is {seconds(near)}; "
                    f"{spans}"
                )
        raise NotHeld(
            f"stamps {seconds(min(asked))} and {seconds(max(asked))} are not in one held window of "
            f"{len(held[-1].stamps)} frames; {spans}"
        )


def seconds(stamp: int) -> str:
    """A stamp in nanoseconds as seconds with all digits."""
    return f"{'-' if stamp < 0 else ''}{abs(stamp) // 10**9}.{abs(stamp) % 10**9:09d}"
