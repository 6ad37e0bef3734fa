"""What a scene is asked before anything else, in one decode: grids of pixels, each in one camera."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from d4rt_ros.model import Queries
from d4rt_ros.tasks.ask import ZERO_CONFIDENCE, asked_grid

if TYPE_CHECKING:
    from d4rt_ros.model import SceneLike


@dataclass(frozen=True)
class Grid:
    """Pixels of some frames, each asked at its own frame's time.

    Attributes:
        rows: of pixels, evenly over the image.
        columns: of pixels.
        frames: indices in the window.
        camera: index of the frame in whose camera the answers are.
    """

    rows: int
    columns: int
    frames: tuple[int, ...]
    camera: int

    def __len__(self) -> int:
        """Number of queries N."""
        return self.rows * self.columns * len(self.frames)


@dataclass(frozen=True)
class Points:
    """What a grid shows, frame by frame and row by row.

    Attributes:
        xyz: [N, 3] float32, scene units, finite.
        confidence: [N] float32; 0 where an answer counts for nothing.
    """

    xyz: np.ndarray
    confidence: np.ndarray


class Glance:
    """Asks for several grids at once: a decode, and what surrounds it, costs more than the queries in it.

    Args:
        scene: is asked.
        grids: that will be wanted. If they cannot be answered together, each is asked on its own when it is
            wanted, so that what fails is that one.
    """

    def __init__(self, scene: SceneLike, *grids: Grid) -> None:
        """Ask."""
        self.scene = scene
        self._found: dict[Grid, Points] = {}
        if grids:
            with suppress(Exception):  # comes again, to who wants the grid that is to blame
                self._ask(grids)

    def points(self, grid: Grid) -> Points:
        """What a grid shows. Raises what the scene's decode raises."""
        if grid not in self._found:
            self._ask((grid,))
        return self._found[grid]

    def _ask(self, grids: tuple[Grid, ...]) -> None:
        # Not through tasks.ask, which would look at all that is answered; here two parts of it are used.
        answers = self.scene.decode(_queries(grids, self.scene.device))
        xyz, sure = answers.xyz.float().cpu().numpy(), answers.confidence.float().cpu().numpy()
        used = sure > ZERO_CONFIDENCE
        if not np.isfinite(xyz.sum() + sure.sum()):  # a sum is finite only if all its parts are
            used &= np.isfinite(xyz).all(-1) & np.isfinite(sure)
            xyz = np.where(used[:, None], xyz, np.float32(0.0))
        sure = np.where(used, sure, np.float32(0.0))
        start = 0
        for grid in grids:
            part = slice(start, start + len(grid))
            self._found[grid], start = Points(xyz[part], sure[part]), part.stop


@lru_cache(maxsize=16)
def _queries(grids: tuple[Grid, ...], device: torch.device) -> Queries:
    """Those [N] of all grids, kept: every window asks the same. Not to be written to."""
    columns = []
    for grid in grids:
        u, v = asked_grid(grid.rows, grid.columns, device)
        time = torch.tensor(grid.frames, device=device).repeat_interleave(len(u))
        camera = torch.full_like(time, grid.camera)
        columns.append((u.repeat(len(grid.frames)), v.repeat(len(grid.frames)), time, time, camera))
    return Queries(*(torch.cat(parts) for parts in zip(*columns)))
