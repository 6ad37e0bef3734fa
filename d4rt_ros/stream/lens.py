"""A scene whose answers agree with given intrinsics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from d4rt_ros.stream.wrapped import WrappedScene

if TYPE_CHECKING:
    from d4rt_ros.model import Answers, Queries


@dataclass(frozen=True)
class CalibratedScene(WrappedScene):
    """A scene seen through the lens that the camera is known to have.

    The network guesses the lens along with the scene. Where the true one is known, the depth z of every
    answer is kept, and x, y are moved so that the point still projects to the same pixel:
    xyz' = inv(K) K_guessed xyz. Displacements follow by the same linear map, normals by its inverse
    transpose. Where a query asks for the very pixel (t_src = t_tgt = t_cam) x and y come from the pixel's ray
    exactly.

    Attributes:
        scene: answers with the network's lens.
        given: [3, 3] known K, pixels of the images.
        guessed: [3, 3] K that the network's answers imply, same pixels.
    """

    given: np.ndarray
    guessed: np.ndarray

    def decode(self, queries: Queries) -> Answers:
        """Answers to queries [N], moved onto the known lens. Raises what the scene raises."""
        answers = self.scene.decode(queries)
        like = answers.xyz
        move = torch.as_tensor(
            np.linalg.solve(self.given, self.guessed), dtype=like.dtype, device=like.device
        )
        xyz = like @ move.T
        ray = torch.as_tensor(np.linalg.inv(self.given), dtype=like.dtype, device=like.device)
        height, width = self.image_size
        u, v = queries.u.to(like) * width, queries.v.to(like) * height
        own = ((queries.t_src == queries.t_tgt) & (queries.t_tgt == queries.t_cam)).to(like.device)
        exact = torch.stack([u, v, torch.ones_like(u)], -1) @ ray.T * like[..., 2:]
        normal = answers.normal @ torch.linalg.inv(move)
        return replace(
            answers,
            xyz=torch.where(own[..., None], exact, xyz),
            displacement=answers.displacement @ move.T,
            normal=torch.nn.functional.normalize(normal, dim=-1),
        )
