"""Procedural scenes as a source of clips for training and for held-out figures."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from d4rt_ros.model import ModelConfig
from d4rt_ros.training.scenes import ProceduralScenes, SceneRecipe
from d4rt_ros.training.truth import ClipBatch


@lru_cache(maxsize=4)
def _scenes(recipe: SceneRecipe) -> ProceduralScenes:
    """Scenes of a recipe; its textures are made once a process."""
    return ProceduralScenes(recipe)


class ProceduralSource:
    """Scenes of the length and size that a model sees; a list of seeds always gives the same batch."""

    def __init__(self, model: ModelConfig, motion: tuple[float, float] = (1.0, 1.0), **options: Any) -> None:
        """Prepare scenes.

        `motion` is the range from which the factor on all speeds is drawn for every batch, log-uniform;
        `options` are fields of `SceneRecipe`: `frames` makes clips shorter than the model's windows. Raises
        TypeError or ValueError if one does not exist or fit.
        """
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        low, high = motion if len(motion) == 2 else (0.0, 0.0)
        if not 0 < low <= high:
            raise ValueError(f"motion is {motion}, must be two positive numbers, the lower one first")
        self._motion = (low, high)
        self._scenes = _scenes(SceneRecipe(**{"frames": model.frames, "size": model.image_size, **options}))
        self.shape = (self._scenes.recipe.frames, *self._scenes.recipe.size)
        self._faster(high)  # what is too fast is refused now, not when it happens to be drawn

    def _faster(self, factor: float) -> SceneRecipe:
        """The recipe at so many times its speeds. Raises ValueError for speeds out of range."""
        base = self._scenes.recipe
        return replace(
            base, camera_motion=base.camera_motion * factor, object_motion=base.object_motion * factor
        )

    def make(self, seeds: list[int]) -> ClipBatch:
        """A batch of len(seeds) clips; the first seed stands for all."""
        generator = torch.Generator().manual_seed(seeds[0])
        low, high = self._motion
        factor = low * (high / low) ** float(torch.rand((), generator=generator))
        return self._scenes.sample(len(seeds), generator, self._faster(factor))
