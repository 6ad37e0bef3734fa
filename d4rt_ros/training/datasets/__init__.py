"""Sources of clips by name: procedural scenes, and readers of data sets that users have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from d4rt_ros.model import ModelConfig
from d4rt_ros.training.datasets import movi, pointodyssey, rgbd, tartanair
from d4rt_ros.training.datasets.sequences import FolderSource, PosedSequence
from d4rt_ros.training.procedural import ProceduralSource
from d4rt_ros.training.recipe import SourceSettings

READERS: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path], PosedSequence]]] = {
    "movi": (movi.find, movi.MoviSequence),
    "pointodyssey": (pointodyssey.find, pointodyssey.PointOdysseySequence),
    "tartanair": (tartanair.find, tartanair.TartanAirSequence),
    "rgbd": (rgbd.find, rgbd.RgbdSequence),
}


def open_source(settings: SourceSettings, model: ModelConfig) -> ProceduralSource | FolderSource:
    """Open a source of clips at the length and size that `model` sees.

    Raises ValueError for an unknown kind or option, FileNotFoundError for a folder without sequences,
    BrokenSequence for one without a sound sequence.
    """
    try:
        if settings.kind == "procedural":
            return ProceduralSource(model, **settings.options)
        if settings.kind in READERS:
            find, reader = READERS[settings.kind]
            return FolderSource(
                settings.path, find, reader, model.frames, model.image_size, **settings.options
            )
    except TypeError as error:
        raise ValueError(f"options of source {settings.kind!r}: {error}") from error
    known = ", ".join(("procedural", *READERS))
    raise ValueError(f"source kind {settings.kind!r} is unknown; known are {known}")
