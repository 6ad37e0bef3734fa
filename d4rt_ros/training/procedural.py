"""Procedural scenes as a source of clips for training and for held-out figures."""

from __future__ import annotations

from typing import Any

import torch

from d4rt_ros.model import ModelConfig
from d4rt_ros.training.scenes import ProceduralScenes, SceneRecipe
from d4rt_ros.training.truth import ClipBatch


class ProceduralSource:
    """Scenes of the length and size that a model sees; a list of seeds always gives the same batch."""

    def __init__(self, model: ModelConfig, **options: Any) -> None:
        """`options` are fields of `SceneRecipe`. Raises TypeError or ValueError if one does not exist or fit."""
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        self._scenes = ProceduralScenes(SceneRecipe(frames=model.frames, size=model.image_size, **options))

    def make(self, seeds: list[int]) -> ClipBatch:
        """A batch of len(seeds) clips; the first seed stands for all."""
        return self._scenes.sample(len(seeds), torch.Generator().manual_seed(seeds[0]))
