"""What a scene that answers through another one has in common with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from d4rt_ros.model.queries import camera_poses, why_unposed

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike


@dataclass(frozen=True)
class WrappedScene:
    """Everything of a scene but its answers, which are the subclass's.

    Attributes:
        scene: what is wrapped.
    """

    scene: SceneLike

    @property
    def frames(self) -> Tensor:
        """[T, 3, H, W] uint8 images."""
        return self.scene.frames

    @property
    def stamps(self) -> tuple[int, ...]:
        """T stamps, nanoseconds."""
        return self.scene.stamps

    @property
    def num_frames(self) -> int:
        """T."""
        return self.scene.num_frames

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return self.scene.image_size

    @property
    def device(self) -> torch.device:
        """Where answers lie."""
        return self.scene.device

    @property
    def solved_poses(self) -> np.ndarray | None:
        """Where cameras are in camera 0, [T, 4, 4], of a scene that knows; else None."""
        return camera_poses(self.scene)

    @property
    def unposed(self) -> str:
        """Why the scene, which looked for its cameras, does not know where they are; else empty."""
        return why_unposed(self.scene)
