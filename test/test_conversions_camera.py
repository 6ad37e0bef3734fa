"""Calibrations and pixels: messages count pixel centres at integers, lenses bend."""

import numpy as np
import pytest
from on_the_wire import TYPES, sent

from d4rt_ros import conversions
from d4rt_ros.camera import Camera

LENSES = [
    ("plumb_bob", (-0.3, 0.1, 0.001, -0.002, -0.01)),
    ("rational_polynomial", (0.4, 0.1, 0.001, 0.002, 0.01, 0.7, 0.2, 0.02)),
    ("equidistant", (0.05, -0.01, 0.004, -0.001)),
]


def test_camera_info_counts_pixel_centres_at_integers():
    ours = np.array([[500.0, 0, 320], [0, 501, 240], [0, 0, 1]])  # principal point in the middle of 640x480
    message = sent(conversions.camera_info(TYPES, 1, "camera", (480, 640), ours))
    assert (message.width, message.height) == (640, 480)
    np.testing.assert_array_equal(message.k, [500, 0, 319.5, 0, 501, 239.5, 0, 0, 1])
    np.testing.assert_array_equal(np.reshape(message.p, (3, 4))[:, :3], np.reshape(message.k, (3, 3)))
    found = conversions.camera(message)
    np.testing.assert_array_equal(found.matrix, ours)
    assert found.size == (480, 640) and not found.distorted


def test_binning_and_region_of_interest_move_the_intrinsics():
    ours = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    message = conversions.camera_info(TYPES, 1, "camera", (480, 640), ours)
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 100, 40, 400, 200
    message.binning_x = message.binning_y = 2
    found = conversions.camera(message)
    assert found.size == (100, 200)
    np.testing.assert_allclose(found.matrix, [[250, 0, 110], [0, 250, 100], [0, 0, 1]])


def test_an_uncalibrated_camera_is_none_and_a_wrong_one_is_refused_by_value():
    blank = TYPES.make("sensor_msgs/msg/CameraInfo", width=4, height=3)
    assert conversions.camera(blank) is None
    ours = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    for change, words in (
        (
            {"distortion_model": "thin_prism", "d": np.ones(5)},
            "distortion_model 'thin_prism' is not supported",
        ),
        ({"d": np.ones(3)}, "needs 4 or 5 coefficients, camera_info has 3"),
        ({"d": np.array([0.1, np.nan, 0, 0, 0])}, "every coefficient must be finite"),
        ({"k": np.array([-1.0, 0, 0, 0, 1, 0, 0, 0, 1])}, "focal lengths must be above 0"),
        ({"k": np.array([500, 0, 320, 0, 1e-9, 240, 0, 0, 1.0])}, "focal lengths between 1/1000 and 1000"),
        ({"k": np.array([500, 0, 1e9, 0, 500, 240, 0, 0, 1.0])}, "focal lengths between 1/1000 and 1000"),
        ({"k": np.array([500, 0, 320, 7, 500, 240, 0, 0, 1.0])}, "fx, s, cx, 0, fy, cy, 0, 0, 1"),
        ({"width": 0}, "image of 0x480 pixels"),
    ):
        message = conversions.camera_info(TYPES, 1, "camera", (480, 640), ours)
        for name, value in change.items():
            setattr(message, name, value)
        with pytest.raises(ValueError, match=words):
            conversions.camera(message)


def test_rectified_images_use_the_projection_matrix():
    ours = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    message = conversions.camera_info(TYPES, 1, "camera", (480, 640), ours, "plumb_bob", (0.3, 0, 0, 0, 0))
    message.p[0], message.p[2] = 400.0, 300.0
    found = conversions.camera(message, rectified=True)
    assert not found.distorted
    np.testing.assert_allclose(found.matrix[0], [400, 0, 300.5])
    assert conversions.camera(message).distorted


@pytest.mark.parametrize(("model", "coefficients"), LENSES)
def test_pixels_go_through_the_lens_and_back(model, coefficients):
    camera = Camera((240, 320), np.array([[250.0, 0, 161], [0, 252, 119], [0, 0, 1]]), model, coefficients)
    uv = np.random.default_rng(0).uniform(0.15, 0.85, (50, 2))
    moved = camera.to_undistorted(uv)
    assert np.abs(moved - uv).max() > 0.005  # the lens does something
    np.testing.assert_allclose(camera.to_published(moved), uv, atol=2e-3)


@pytest.mark.parametrize(("model", "coefficients"), LENSES)
def test_a_dot_is_undistorted_to_where_its_pixel_goes(model, coefficients):
    camera = Camera((240, 320), np.array([[250.0, 0, 161], [0, 252, 119], [0, 0, 1]]), model, coefficients)
    for column, row in ((60, 50), (250, 180), (161, 30)):
        picture = np.zeros((240, 320, 3), np.uint8)
        picture[row - 1 : row + 2, column - 1 : column + 2] = 255
        found = camera.undistort(picture)[..., 0].astype(float)
        centre = [
            (found.sum(axis) * (np.arange(n) + 0.5)).sum() / found.sum() / n
            for axis, n in ((0, 320), (1, 240))
        ]
        wanted = camera.to_undistorted(np.array([[(column + 0.5) / 320, (row + 0.5) / 240]]))[0]
        np.testing.assert_allclose(np.array(centre) * [320, 240], wanted * [320, 240], atol=0.2)


def test_undistorted_depth_mixes_no_neighbours_and_marks_the_unseen():
    camera = Camera(
        (60, 80), np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]]), "plumb_bob", (0.4, 0, 0, 0, 0)
    )
    depth = np.where(np.arange(80) < 40, 1.0, 9.0).astype(np.float32) * np.ones((60, 1), np.float32)
    found = camera.undistort(depth, nearest=True)
    assert set(np.unique(found[np.isfinite(found)])) == {1.0, 9.0}
    assert np.isnan(found).any()
    with pytest.raises(ValueError, match="camera_info is for 80x60 pixels, the image has 40x30"):
        camera.undistort(depth[::2, ::2])


def test_pixels_outside_the_image_are_refused_with_the_range():
    uv = conversions.pixels_to_uv([-0.5, 0.0, 63.5], [0.0, 23.5, 47.5], (48, 64))
    np.testing.assert_allclose(uv, [[0, 0.5 / 48], [0.5 / 64, 0.5], [1, 1]])
    np.testing.assert_allclose(
        conversions.uv_to_pixels(uv, (48, 64)), [[-0.5, 0], [0, 23.5], [63.5, 47.5]], atol=1e-5
    )
    with pytest.raises(ValueError, match=r"u\[1\] is 63.6, outside the image: from -0.5 to 63.5"):
        conversions.pixels_to_uv([0, 63.6], [0, 0], (48, 64))
    with pytest.raises(ValueError, match=r"v\[1\] is 48, outside the image: from -0.5 to 47.5"):
        conversions.pixels_to_uv([0, 0], [0, 48], (48, 64))
    with pytest.raises(ValueError, match=r"v\[0\] is -0.6"):
        conversions.pixels_to_uv([0], [-0.6], (48, 64))
    with pytest.raises(ValueError, match=r"v\[0\] is nan"):
        conversions.pixels_to_uv([0], [np.nan], (48, 64))
    with pytest.raises(ValueError, match="u has 2 values and v has 1"):
        conversions.pixels_to_uv([0, 1], [0], (48, 64))
