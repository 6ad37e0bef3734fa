"""Sources of clips by name: procedural scenes, and readers of data sets that users have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d4rt_ros.model import ModelConfig

if TYPE_CHECKING:
    from d4rt_ros.training.feed import ClipSource
    from d4rt_ros.training.recipe import SourceSettings

KINDS = ("procedural", "movi", "pointodyssey", "tartanair", "rgbd")


def open_source(settings: SourceSettings, model: ModelConfig) -> ClipSource:
    """Open a source of clips at the size that `model` sees.

    Raises ValueError for an unknown kind, FileNotFoundError for a folder without usable sequences.
    """
    if settings.kind == "procedural":
        from d4rt_ros.training.procedural import ProceduralSource

        return ProceduralSource(model, **settings.options)
    raise ValueError(f"source kind {settings.kind!r} is unknown; known are {', '.join(KINDS)}")
