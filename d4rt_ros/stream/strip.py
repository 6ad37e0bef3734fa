"""Images side by side in memory, so that those of a window need not be copied together."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

WINDOWS = 3  # that a strip is long
MAX_BYTES = 128 << 20  # of a strip; of images so large that two windows do not fit none is made


class Strip:
    """Copies each image to behind the one before, until the strip is full and another one begins.

    A strip that nobody holds an image of is used again: memory that is new to the process costs more than
    the copies.

    Args:
        length: images of a window.
    """

    def __init__(self, length: int) -> None:
        """No image yet."""
        self._length, self._used = length, 0
        self._strips: list[np.ndarray] = []  # the one in use is the last

    @property
    def left(self) -> int | None:
        """Images that still fit behind the last one; None where there is no strip."""
        return len(self._strips[-1]) - self._used if self._strips else None

    def leave(self) -> None:
        """Have the next image begin another strip."""
        if self._strips:
            self._used = len(self._strips[-1])

    def full(self, image: np.ndarray) -> bool:
        """Whether ``append`` of this image begins another strip, so that its forerunners must move too."""
        return not self._strips or self._used == len(self._strips[-1]) or self._other_size(image)

    def append(self, image: np.ndarray) -> np.ndarray:
        """The image [H, W, 3] in its place behind the last one, or as it is where strips would be too large.

        What somebody holds is never written to again.
        """
        if self.full(image):
            room = min(WINDOWS * self._length, MAX_BYTES // max(1, image.nbytes))
            if room < 2 * self._length:
                return image
            self._begin(image, room)
        place = np.asarray(self._strips[-1][self._used])
        place[...] = image
        self._used += 1
        return place

    def _begin(self, image: np.ndarray, room: int) -> None:
        if self._strips and self._other_size(image):
            self._strips.clear()
        # Every view counts on the strip itself: the list and getrefcount's own argument are the other two.
        unheld = (i for i in range(len(self._strips)) if sys.getrefcount(self._strips[i]) == 2)
        index = next(unheld, None)
        fresh = np.empty((room, *image.shape), image.dtype) if index is None else self._strips.pop(index)
        self._strips.append(fresh)
        self._used = 0

    def _other_size(self, image: np.ndarray) -> bool:
        return self._strips[-1].shape[1:] != image.shape


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images [T, H, W, 3] of a window: a view where they lie side by side in a strip, else a copy."""
    first, strip = images[0], images[0].base
    if isinstance(strip, np.ndarray) and strip.shape[1:] == first.shape and first.nbytes:
        addresses = [_address(one) for one in images]
        here = (addresses[0] - _address(strip)) // first.nbytes
        beside = range(addresses[0], addresses[0] + len(images) * first.nbytes, first.nbytes)
        if addresses == list(beside) and all(
            one.base is strip and one.shape == first.shape for one in images
        ):
            return np.asarray(strip[here : here + len(images)])
    return np.stack(images)


def _address(image: np.ndarray) -> int:
    """Of the first byte."""
    return int(image.__array_interface__["data"][0])
