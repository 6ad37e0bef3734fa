"""Turns a stream of frames into windows of even length, and starts over where the stream breaks."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from d4rt_ros.stream.frames import Frame, Window
from d4rt_ros.stream.strip import Strip

GAP = "no frame for"  # how the reason begins where a silence broke the stream


@dataclass
class WindowCounters:
    """What became of the frames: received = used + thinned + duplicates + out_of_order."""

    received: int = 0
    used: int = 0
    thinned: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    windows: int = 0
    restarts: int = 0


class FrameWindow:
    """The newest frames of one camera; every `stride` used frames it hands out the newest `length`.

    A frame that is a little late (by at most the gap) is dropped and counted. The window is emptied, with a
    reason, where frames before and after cannot belong together: a silence longer than the gap, time going
    back by more than the gap (a bag that loops), another image size, another frame id. Safe to call from
    several threads.

    Args:
        length: frames in a window, even.
        stride: used frames between windows.
        frame_step: every n-th frame is used.
        max_gap_ns: longest silence inside a window, nanoseconds.
    """

    def __init__(self, length: int, stride: int, frame_step: int, max_gap_ns: int) -> None:
        """Make an empty window."""
        if length < 2 or length % 2 or not 1 <= stride <= length or frame_step < 1 or max_gap_ns < 1:
            raise ValueError(
                f"length is {length} (even, from 2), stride {stride} (1 to length), frame_step {frame_step} "
                f"(from 1), max_gap_ns {max_gap_ns} (from 1)"
            )
        self.length, self.stride, self.frame_step, self.max_gap_ns = length, stride, frame_step, max_gap_ns
        self.counters = WindowCounters()
        self._lock = threading.Lock()
        self._frames: deque[Frame] = deque(maxlen=length)
        self._strip = Strip(length)
        self._newest: Frame | None = None
        self._phase = 0  # accepted frames since the last used one
        self._fresh = 0  # used frames since the last window
        self._starts = True
        self._reason = ""

    @property
    def restarts(self) -> str:
        """Why the stream last started over; empty if it never did."""
        return self._reason

    def clear(self, reason: str) -> None:
        """Forget all frames; the next window starts a segment for this reason."""
        with self._lock:
            self._restart(reason)

    def push(self, frame: Frame) -> Window | None:
        """Take a frame; the newest window if this frame completes one."""
        with self._lock:
            self.counters.received += 1
            last = self._newest
            if last is not None:
                step = frame.stamp - last.stamp
                broken = self._break(last, frame, step)
                if broken:
                    self._restart(broken)
                elif step == 0:
                    self.counters.duplicates += 1
                    return None
                elif step < 0:
                    self.counters.out_of_order += 1
                    return None
            self._newest = frame
            return self._use(frame)

    def make_room(self) -> None:
        """Between frames, when nobody waits: see to it that the next window's frames fit beside each other.

        Otherwise the first one that does not fit has those before it copied, and its window waits for that.
        """
        with self._lock:
            left = self._strip.left
            missing = self.length - len(self._frames)
            to_come = missing if self._starts else max(missing, self.stride - self._fresh)
            # Just after a window its own work goes first, unless the next frame completes another one.
            if left is not None and left < to_come and (self._fresh or to_come == 1):
                self._move(self.length - to_come)

    def _break(self, last: Frame, frame: Frame, step: int) -> str:
        """Why this frame cannot follow the last one; empty if it can."""
        if frame.image_size != last.image_size:
            (h0, w0), (h1, w1) = last.image_size, frame.image_size
            return f"image size changed from {w0}x{h0} to {w1}x{h1}"
        if frame.frame_id != last.frame_id:
            return f"camera frame changed from '{last.frame_id}' to '{frame.frame_id}'"
        if step > self.max_gap_ns:
            return f"{GAP} {step / 1e9:.3f} s (at most {self.max_gap_ns / 1e9:.3f} s)"
        if step < -self.max_gap_ns:
            return f"time jumped back by {-step / 1e9:.3f} s"
        return ""

    def _restart(self, reason: str) -> None:
        self._frames.clear()
        self._newest = None
        self._phase = self._fresh = 0
        self._starts, self._reason = True, reason
        self.counters.restarts += 1

    def _placed(self, frame: Frame) -> Frame:
        """The frame with its image beside those before it."""
        return replace(frame, image=self._strip.append(frame.image))

    def _move(self, count: int) -> None:
        """Keep so many of the newest frames, in another strip."""
        kept = list(self._frames)[-count:] if count else []
        self._strip.leave()
        self._frames.clear()
        self._frames.extend(map(self._placed, kept))

    def _use(self, frame: Frame) -> Window | None:
        skip, self._phase = self._phase, (self._phase + 1) % self.frame_step
        if skip:
            self.counters.thinned += 1
            return None
        self.counters.used += 1
        if self._strip.full(frame.image):
            self._move(self.length - 1)
        self._frames.append(self._placed(frame))
        self._fresh += 1
        if len(self._frames) < self.length or (not self._starts and self._fresh < self.stride):
            return None
        window = Window(tuple(self._frames), self._starts, self._reason if self._starts else "")
        self._fresh, self._starts = 0, False
        self.counters.windows += 1
        return window
