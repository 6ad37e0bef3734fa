"""Images side by side: views that hold what was put in, copies where that is not possible."""

from __future__ import annotations

import numpy as np
import pytest

from d4rt_ros.stream import strip as strips
from d4rt_ros.stream.frames import Frame
from d4rt_ros.stream.strip import WINDOWS, Strip, stacked
from d4rt_ros.stream.window import FrameWindow

LENGTH = 4


def images(count: int, height: int = 3) -> list[np.ndarray]:
    """Images that differ."""
    return [np.full((height, 5, 3), i, np.int64) for i in range(count)]


def test_every_window_is_a_view_of_what_was_put_in() -> None:
    """Over the ends of strips too; what is held is never written to, what is not held is used again."""
    window, held, places = FrameWindow(LENGTH, 1, 1, 10**9), [], set()
    for i, image in enumerate(images(20 * WINDOWS * LENGTH)):
        made = window.push(Frame(1 + i, image))
        if made is None:
            continue
        found = stacked([frame.image for frame in made.frames])
        assert all(np.shares_memory(found[k], frame.image) for k, frame in enumerate(made.frames))
        assert found[:, 0, 0, 0].tolist() == [i - LENGTH + 1 + k for k in range(LENGTH)]
        places.add(found.ctypes.data)
        if i % 37 == 0:
            held.append((i, found))
    for i, found in held:
        assert found[:, 0, 0, 0].tolist() == [i - LENGTH + 1 + k for k in range(LENGTH)]
    assert len(places) < (3 + len(held)) * WINDOWS * LENGTH


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 3, 4), (0, 0, 1, 2), (3, 2, 1, 0)])
def test_images_that_are_not_in_a_row_are_copied(order: tuple[int, ...]) -> None:
    """Frames of the last window in front of newer ones, for example."""
    strip, given = Strip(LENGTH), images(5)
    placed = [strip.append(image) for image in given]
    window = stacked([placed[i] for i in order])
    assert (window == np.stack([given[i] for i in order])).all()
    assert not np.shares_memory(window, placed[0])


def test_another_size_begins_another_strip() -> None:
    """And images that no strip holds are stacked all the same."""
    strip = Strip(LENGTH)
    first, second = strip.append(images(1)[0]), strip.append(images(1, height=7)[0])
    assert second.shape == (7, 5, 3) and not np.shares_memory(first, second)
    assert Strip(LENGTH).append(np.full((3, 5, 3), 0.5)).tolist() == np.full((3, 5, 3), 0.5).tolist()
    plain = images(LENGTH)
    assert (stacked(plain) == np.stack(plain)).all() and stacked(plain[:1]).shape == (1, 3, 5, 3)


def test_images_too_large_for_a_strip_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than two windows of room: nothing is copied twice."""
    image = images(1)[0]
    monkeypatch.setattr(strips, "MAX_BYTES", image.nbytes * (2 * LENGTH - 1))
    assert Strip(LENGTH).append(image) is image


def test_frames_of_a_window_lie_in_a_row() -> None:
    """The buffer of the camera's message is free again at once."""
    window, made = FrameWindow(LENGTH, 2, 1, 10**9), []
    message = np.zeros((3, 5, 3), np.uint8)
    for i in range(LENGTH):
        message[...] = i
        made.append(window.push(Frame(1 + i, message)))
    assert made[-1] is not None
    found = [frame.image for frame in made[-1].frames]
    assert [int(image[0, 0, 0]) for image in found] == list(range(LENGTH))
    assert np.shares_memory(stacked(found), found[0])


@pytest.mark.parametrize("stride", [1, 2, 3, LENGTH])
def test_no_frame_that_completes_a_window_has_others_moved(stride: int) -> None:
    """With room made between frames; and windows are the same as without."""
    window, plain, before = FrameWindow(LENGTH, stride, 1, 10**9), FrameWindow(LENGTH, stride, 1, 10**9), []
    for i, image in enumerate(images(20 * WINDOWS * LENGTH)):
        made, same = (one.push(Frame(1 + i, image)) for one in (window, plain))
        assert (made is None) == (same is None)
        if made is not None and same is not None:
            assert made.stamps == same.stamps
            found = stacked([frame.image for frame in made.frames])
            assert found[:, 0, 0, 0].tolist() == list(range(i - LENGTH + 1, i + 1))
            assert np.shares_memory(found, made.frames[0].image)
            assert {id(frame.image) for frame in made.frames[:-1]} <= set(before)
        window.make_room()
        before = [id(frame.image) for frame in window._frames]
