"""Data sets on disk as `Sequence`s: one file a layout, and `open_sequences` that finds out which it is."""

from d4rt_ros.evaluation.readers.detect import open_sequences

__all__ = ["open_sequences"]
