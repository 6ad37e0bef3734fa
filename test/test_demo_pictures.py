"""The demo's pictures show what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "demo"))
from pictures import DARK, Seen, colourised, depth_picture, save_pictures, tracks_picture  # noqa: E402

SIZE = (24, 32)


def test_near_is_red_far_is_blue_and_unknown_is_dark() -> None:
    red, blue, dark = colourised(np.array([[1.0, 4.0, np.nan]], np.float32), near=1.0, far=4.0)[0].astype(int)
    assert red[0] > red[2] and blue[2] > blue[0] and tuple(dark) == DARK


def test_images_stand_beside_their_depths() -> None:
    pairs = [(np.full((*SIZE, 3), n, np.uint8), np.full(SIZE, 1.0 + n, np.float32)) for n in range(5)]
    picture = depth_picture(Seen(depths=pairs), "m", rows=3)
    assert picture is not None
    assert picture.shape[0] == 3 * SIZE[0] + 2 * 8
    assert [int(picture[row * (SIZE[0] + 8), 0, 0]) for row in range(3)] == [0, 2, 4]
    assert depth_picture(Seen(depths=[(pairs[0][0], np.full(SIZE, np.nan, np.float32))]), "m") is None


def test_a_trail_ends_where_the_point_is_now() -> None:
    uv = np.array([[[5.0, 5.0]], [[20.0, 12.0]]], np.float32)
    seen = Seen(
        images={7: np.zeros((*SIZE, 3), np.uint8)}, tracks=([3, 7], np.array([1]), uv, np.ones((2, 1)))
    )
    picture = tracks_picture(seen, zoom=4)
    assert picture is not None
    drawn = picture.any(axis=-1)
    assert drawn[50, 82] and drawn[36, 54] and not drawn[80, 20]  # end, midway, elsewhere
    assert tracks_picture(Seen()) is None


def test_all_pictures_are_saved_or_said_to_be_missing(tmp_path: Path) -> None:
    assert save_pictures(Seen(), tmp_path, metric=False) == {
        "depth.png": False,
        "tracks.png": False,
        "camera_path.png": False,
    }
    path = np.cumsum(np.ones((5, 3)), axis=0)
    made = save_pictures(Seen(path=path), tmp_path, metric=True)
    assert made["camera_path.png"] and cv2.imread(str(tmp_path / "camera_path.png")).std() > 5
