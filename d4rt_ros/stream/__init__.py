"""What makes the model live: frame windows, one worker, joined windows, metric scale, followed points."""

from d4rt_ros.stream.frames import Frame, Window
from d4rt_ros.stream.history import History, NotHeld
from d4rt_ros.stream.pipeline import Pipeline
from d4rt_ros.stream.results import Cloud, Tracks, WindowResult
from d4rt_ros.stream.settings import RANGES, SCALE_SOURCES, StreamSettings
from d4rt_ros.stream.thrift import DeviceOutOfMemory
from d4rt_ros.stream.window import FrameWindow, WindowCounters
from d4rt_ros.stream.worker import OUTPUTS, QueueFull, Worker, WorkerCounters, WorkerStopped

__all__ = [
    "OUTPUTS",
    "RANGES",
    "SCALE_SOURCES",
    "Cloud",
    "DeviceOutOfMemory",
    "Frame",
    "FrameWindow",
    "History",
    "NotHeld",
    "Pipeline",
    "QueueFull",
    "StreamSettings",
    "Tracks",
    "Window",
    "WindowCounters",
    "WindowResult",
    "Worker",
    "WorkerCounters",
    "WorkerStopped",
]
