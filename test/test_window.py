"""Frame windows: when they come out, and what breaks them."""

from __future__ import annotations

import numpy as np
import pytest

from d4rt_ros.stream import Frame, FrameWindow, StreamSettings, Window

MS = 1_000_000


def frame(ms: float, size: tuple[int, int] = (4, 6), frame_id: str = "cam") -> Frame:
    """A small frame at a time in milliseconds."""
    return Frame(int(ms * MS), np.zeros((*size, 3), np.uint8), frame_id)


def push_all(window: FrameWindow, times: range | list[float]) -> list[Window]:
    """The windows that come out of frames at these times."""
    return [w for t in times if (w := window.push(frame(t))) is not None]


def stamps(window: Window) -> list[int]:
    """Stamps in milliseconds."""
    return [s // MS for s in window.stamps]


def test_windows_come_every_stride_once_full() -> None:
    """The first when full, then every stride frames; only the first starts a segment."""
    out = push_all(FrameWindow(4, 2, 1, 1000 * MS), range(0, 80, 10))
    assert [stamps(w) for w in out] == [[0, 10, 20, 30], [20, 30, 40, 50], [40, 50, 60, 70]]
    assert [w.starts_segment for w in out] == [True, False, False]
    assert [w.reason for w in out] == ["", "", ""]


def test_frame_step_uses_every_nth_frame() -> None:
    """Of 12 frames with step 3 the frames 0, 3, 6, 9 are used."""
    window = FrameWindow(4, 4, 3, 1000 * MS)
    out = push_all(window, range(0, 120, 10))
    assert [stamps(w) for w in out] == [[0, 30, 60, 90]]
    assert (window.counters.used, window.counters.thinned) == (4, 8)


def test_duplicates_and_late_frames_are_dropped_and_counted() -> None:
    """A repeated stamp and a late one do not reach a window."""
    window = FrameWindow(4, 2, 1, 1000 * MS)
    out = push_all(window, [0, 10, 10, 20, 15, 30])
    assert [stamps(w) for w in out] == [[0, 10, 20, 30]]
    counters = window.counters
    assert (counters.received, counters.used, counters.duplicates, counters.out_of_order) == (6, 4, 1, 1)
    assert counters.restarts == 0


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (frame(5000), "no frame for 4.970 s"),
        (frame(-5000), "time jumped back by 5.030 s"),
        (frame(40, (6, 4)), "image size changed from 6x4 to 4x6"),
        (frame(40, frame_id="other"), "camera frame changed from 'cam' to 'other'"),
    ],
)
def test_a_break_starts_over_and_says_why(odd: Frame, words: str) -> None:
    """Nothing from before the break is in the next window, which starts a segment with the reason."""
    window = FrameWindow(4, 2, 1, 1000 * MS)
    push_all(window, range(0, 40, 10))
    assert window.push(odd) is None
    follow = [Frame(odd.stamp + i * 10 * MS, odd.image, odd.frame_id) for i in (1, 2, 3)]
    out = [w for f in follow if (w := window.push(f)) is not None]
    assert len(out) == 1 and out[0].starts_segment and words in out[0].reason
    assert out[0].stamps[0] == odd.stamp
    assert words in window.restarts and window.counters.restarts == 1


def test_one_frame_from_the_future_heals() -> None:
    """After a far future stamp the stream goes on with true time at once."""
    window = FrameWindow(2, 2, 1, 1000 * MS)
    out = push_all(window, [0, 1e7, 20, 30])
    assert [stamps(w) for w in out] == [[20, 30]]
    assert window.counters.restarts == 2


def test_clear_forgets_frames_and_keeps_the_reason() -> None:
    """After clear a whole window is needed again."""
    window = FrameWindow(2, 1, 1, 1000 * MS)
    push_all(window, [0, 10])
    window.clear("reset was asked for")
    assert window.push(frame(20)) is None
    out = window.push(frame(30))
    assert out is not None and out.starts_segment and out.reason == "reset was asked for"


def test_every_frame_is_counted_once() -> None:
    """Received frames are used, thinned, duplicates or late: nothing is lost without a count."""
    rng = np.random.default_rng(0)
    window = FrameWindow(4, 3, 2, 50 * MS)
    for t in np.cumsum(rng.choice([-120, -10, 0, 10, 10, 10, 100], 500)):
        window.push(frame(float(t)))
    c = window.counters
    assert c.received == 500 == c.used + c.thinned + c.duplicates + c.out_of_order
    assert c.restarts > 0 and c.duplicates > 0 and c.out_of_order > 0 and c.windows > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window_length", 3),
        ("window_length", 0),
        ("window_stride", 17),
        ("frame_step", 1.5),
        ("max_gap", float("nan")),
        ("points_min_confidence", 1.5),
        ("scale_source", "guess"),
        ("scale_value", -1.0),
        ("query_queue", True),
    ],
)
def test_wrong_settings_are_refused_by_name(field: str, value: object) -> None:
    """The message names the field and the value."""
    with pytest.raises(ValueError, match=f"{field} is .*; it must be"):
        StreamSettings(**{field: value})


def test_wrong_window_arguments_are_refused() -> None:
    """Odd lengths never reach the model."""
    with pytest.raises(ValueError, match="length is 3"):
        FrameWindow(3, 1, 1, 1)
