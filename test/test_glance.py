"""Grids of pixels that a scene is asked at once."""

from __future__ import annotations

import numpy as np
import pytest
from room import Room, stamps

from d4rt_ros.model import Answers, Queries
from d4rt_ros.stream.glance import Glance, Grid


def test_grids_are_asked_together_and_alone_where_that_fails() -> None:
    """One decode for all; what one of them is to blame for, the others do not suffer."""
    scene = Room(stamps(0, 8), noise=0.0)
    few, many = Grid(4, 4, (1, 3), 2), Grid(6, 8, (7,), 7)
    glance = Glance(scene, few, many)
    assert scene.decoded == [len(few) + len(many)] == [32 + 48]
    for grid in (few, many):
        alone = Glance(Room(stamps(0, 8))).points(grid)
        assert np.allclose(glance.points(grid).xyz, alone.xyz) and alone.xyz.shape == (len(grid), 3)
    exact = scene.decode

    def decode(queries: Queries) -> Answers:
        if len(queries.u) >= len(many):
            raise RuntimeError("too many")
        return exact(queries)

    scene.decode = decode  # type: ignore[method-assign]
    glance = Glance(scene, few, many)
    assert len(glance.points(few).xyz) == len(few)
    with pytest.raises(RuntimeError, match="too many"):
        glance.points(many)
