"""From frames to a scene: windows that follow each other, and memory for one more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from d4rt_ros.model import Scene
from d4rt_ros.stream.frames import Window
from d4rt_ros.stream.strip import stacked
from d4rt_ros.stream.thrift import BatchLimit, ThriftyScene, retried
from d4rt_ros.tasks.camera import intrinsics

if TYPE_CHECKING:
    from typing import Protocol

    from d4rt_ros.model import SceneLike

    class Encodes(Protocol):
        """The part of the model that is used here."""

        def encode(self, video: torch.Tensor, stamps: tuple[int, ...]) -> SceneLike:
            """Scene of frames [T, 3, H, W] uint8."""
            ...


def linked(window: Window, last: Window, stride: int) -> tuple[Window, str]:
    """A window with frames of the last one in it, so that it can be joined; and what is to be said of that.

    Windows are dropped while the device is busy, or share no frames by their stride. Some frames of the last
    one in front of the newest ones keep the world together.
    """
    if window.stamps[0] <= last.stamps[-1]:
        return window, ""
    count = max(1, len(window.frames) // 4)
    why, remedy = "the device is slower than the camera", "raise window.stride or window.frame_step"
    if stride >= len(window.frames):
        why, remedy = "windows share no frames, since window.stride is window.length", "lower window.stride"
    note = f"{why}: {count} frames of the last window link this one to it; {remedy}"
    return replace(window, frames=last.frames[-count:] + window.frames[count:]), note


class Encoding:
    """Encodes windows; when memory runs out it makes room and tries again.

    Args:
        model: encodes.
        make_room: forgets what is not needed.
    """

    def __init__(self, model: Encodes, make_room: Callable[[], None]) -> None:
        """Begin with no limit to the size of a decode."""
        self._model, self._make_room = model, make_room
        self._limit = BatchLimit()

    def scene(self, window: Window) -> ThriftyScene:
        """The scene of a window.

        Raises:
            DeviceOutOfMemory: the window cannot be encoded on this device.
            ValueError: the model takes no such window.
        """
        images = stacked([frame.image for frame in window.frames])
        video = torch.from_numpy(images).permute(0, 3, 1, 2)
        device = getattr(self._model, "device", torch.device("cpu"))
        what = f"a window of {len(images)} frames of {images.shape[2]}x{images.shape[1]}"
        scene = retried(lambda: self._model.encode(video, window.stamps), what, device, self._make_room)
        given = window.newest.intrinsics
        if given is not None and isinstance(scene, Scene):
            with suppress(ValueError):  # the pipeline says so when it comes to the camera
                known = intrinsics(scene, known=given).matrix
                scene = scene.with_focal(float(known[0, 0]) / images.shape[2])
        return ThriftyScene(scene, self._limit)
