"""What makes the model live: frame windows, one worker, joined windows, metric scale, followed points."""

from d4rt_ros.stream.frames import Frame, Window
from d4rt_ros.stream.results import Cloud, Tracks, WindowResult
from d4rt_ros.stream.settings import RANGES, SCALE_SOURCES, StreamSettings

__all__ = [
    "RANGES",
    "SCALE_SOURCES",
    "Cloud",
    "Frame",
    "StreamSettings",
    "Tracks",
    "Window",
    "WindowResult",
]
