"""Messages to arrays and back, through real bytes (CDR) wherever a message is made."""

import contextlib
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d4rt_ros import conversions
from d4rt_ros.bag.messages import BagMessages
from d4rt_ros.camera import Camera
from d4rt_ros.images import ENCODINGS, decode_compressed, decode_depth, decode_rgb

TYPES = BagMessages()
RED, GREEN, BLUE = (200, 10, 20), (30, 180, 40), (50, 60, 170)
COLOURS = np.array([RED, GREEN, BLUE], np.uint8)[np.arange(4 * 6).reshape(4, 6) % 3]  # [4, 6, 3]


def sent(message):
    """The message as it arrives."""
    return TYPES.deserialize(TYPES.serialize(message, message.__msgtype__), message.__msgtype__)


def image(encoding, pixels, padding=0, big_endian=False):
    """sensor_msgs/Image of an array whose rows are the image's rows."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return sent(
        TYPES.make(
            "sensor_msgs/msg/Image",
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=int(big_endian),
            step=rows.shape[1],
            data=rows.ravel(),
        )
    )


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 0])],
)
def test_colour_encodings_keep_every_pixel(encoding, order, padding):
    found = conversions.image_array(image(encoding, COLOURS[:, :, order], padding))
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, COLOURS)


def test_unpadded_rgb8_is_not_copied():
    message = image("rgb8", COLOURS)
    assert np.shares_memory(conversions.image_array(message), message.data)


def test_grey_becomes_three_equal_channels():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(
        conversions.image_array(image("mono8", grey)), np.repeat(grey[..., None], 3, 2)
    )


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_16_bit_grey_spans_the_full_range_in_either_byte_order(big_endian, padding):
    grey = np.array([[0, 257, 65535], [256 * 100, 1000, 30000]])
    message = image("mono16", grey.astype(">u2" if big_endian else "<u2"), padding, big_endian)
    np.testing.assert_array_equal(conversions.image_array(message)[..., 0], np.rint(grey / 257))


@pytest.mark.parametrize(
    ("encoding", "places"),
    [("yuv422", [1, 0, 3, 2]), ("uyvy", [1, 0, 3, 2]), ("yuv422_yuy2", [0, 1, 2, 3]), ("yuyv", [0, 1, 2, 3])],
)
def test_yuv422_has_its_colours(encoding, places):
    # Two pixels of a saturated red by BT.601 (studio range): Y 81, U 90, V 240.
    yuyv = np.array([81, 90, 81, 240], np.uint8)[places]
    found = conversions.image_array(image(encoding, np.tile(yuyv.reshape(1, 2, 2), (2, 2, 1))))
    assert found.shape == (2, 4, 3)
    np.testing.assert_allclose(found.reshape(-1, 3), np.tile([254, 0, 0], (8, 1)), atol=3)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_have_their_colours(pattern, bits):
    colour = {"r": 200, "g": 120, "b": 40}
    mosaic = np.array([colour[letter] for letter in pattern]).reshape(2, 2)
    raw = np.tile(mosaic, (4, 4)) * (1 if bits == 8 else 257)
    found = conversions.image_array(
        image(f"bayer_{pattern}{bits}", raw.astype(np.uint8 if bits == 8 else "<u2"))
    )
    np.testing.assert_array_equal(found, np.broadcast_to([200, 120, 40], (8, 8, 3)))


@pytest.mark.parametrize("encoding", ["32FC3", "8UC3", "", "nv21", "RGB8", "bayer_rggb12"])
def test_an_unknown_encoding_is_refused_by_name(encoding):
    with pytest.raises(ValueError, match=f"encoding '{encoding}' is not supported; supported are rgb8"):
        conversions.image_array(image(encoding, COLOURS))


def test_truncated_data_and_impossible_sizes_are_refused_with_the_numbers():
    message = image("rgb8", COLOURS)
    message.data = message.data[:-1]
    with pytest.raises(ValueError, match="71 bytes, but step 18 times height 4 is 72"):
        conversions.image_array(message)
    message.step = 17
    with pytest.raises(ValueError, match="step 17 is below the 18 bytes"):
        conversions.image_array(message)
    message.width = 0
    with pytest.raises(ValueError, match="0x4"):
        conversions.image_array(message)
    with pytest.raises(ValueError, match="width 3 is odd"):
        decode_rgb("yuyv", 2, 3, 6, False, np.zeros(12, np.uint8))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([*ENCODINGS, "32FC1", "?"]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 80),
    st.booleans(),
    st.binary(max_size=400),
)
def test_any_image_is_read_or_refused(encoding, height, width, step, big_endian, data):
    try:
        found = decode_rgb(encoding, height, width, step, big_endian, np.frombuffer(data, np.uint8))
    except ValueError as error:
        assert str(error)
    else:
        assert found.shape == (height, width, 3) and found.dtype == np.uint8


def test_compressed_images_keep_their_colours_and_ignore_orientation_tags():
    smooth = np.zeros((16, 32, 3), np.uint8) + np.array(RED, np.uint8)
    smooth[:, 16:] = BLUE
    tiff = b"II*\0" + struct.pack(
        "<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0
    )  # orientation 6: turn by 90 degrees
    tag = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff
    for extension, tolerance in ((".png", 0), (".jpg", 12)):
        data = cv2.imencode(extension, smooth[:, :, ::-1])[1].tobytes()
        if extension == ".jpg":
            data = data[:2] + tag + data[2:]
        message = TYPES.make(
            "sensor_msgs/msg/CompressedImage",
            format="rgb8; jpeg compressed bgr8",
            data=np.frombuffer(data, np.uint8),
        )
        found = conversions.compressed_image_array(sent(message)).astype(int)
        assert found.shape == smooth.shape
        flat = np.abs(np.arange(32) - 15.5) > 4  # away from the edge, where JPEG blurs colours
        np.testing.assert_allclose(found[:, flat], smooth[:, flat], atol=tolerance)


def test_compressed_data_that_is_no_camera_image_is_refused():
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1]
    for data, words in (
        (b"\xff\xd8 nonsense", "neither JPEG nor PNG"),
        (b"", "of 0 bytes is neither JPEG nor PNG"),
        (b"\x89PNG\r\n\x1a\n" + 8 * b"x" + struct.pack(">II", 60_000, 60_000), "60000x60000 pixels; at most"),
        (b"\x89PNG\r\n\x1a\n" + 8 * b"x" + struct.pack(">II", 6, 6), "cannot be decoded"),
        (cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), "neither JPEG nor PNG"),
        (jpeg[: len(jpeg) // 4].tobytes(), "cut off in its head"),
    ):
        with pytest.raises(ValueError, match=words):
            decode_compressed("jpeg", np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="compressed depth"):
        decode_compressed("16UC1; compressedDepth png", np.ones(9, np.uint8))


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
)
def test_any_compressed_data_is_read_or_refused(data, head):
    with contextlib.suppress(ValueError):
        decode_compressed("jpeg", np.frombuffer(head + data, np.uint8))


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_becomes_metres_with_nan_for_no_measurement(big_endian):
    order = ">" if big_endian else "<"
    millimetres = np.array([[0, 1, 1500], [65535, 20, 0]])
    found = conversions.depth_array(image("16UC1", millimetres.astype(order + "u2"), 4, big_endian))
    np.testing.assert_allclose(found, [[np.nan, 0.001, 1.5], [65.535, 0.02, np.nan]], rtol=1e-6)
    metres = np.array([[0.0, -1.0, 2.5], [np.nan, np.inf, -np.inf]])
    found = conversions.depth_array(image("32FC1", metres.astype(order + "f4"), 0, big_endian))
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 2.5], [np.nan] * 3])
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="depth encoding 'rgb8'"):
        decode_depth("rgb8", 1, 1, 3, False, np.zeros(3, np.uint8))


def test_depth_images_survive_the_round_trip():
    depth = np.array([[1.25, np.nan], [0.5, 1e4]], np.float32)
    message = sent(conversions.depth_image(TYPES, 5_000_000_007, "camera", depth))
    assert (message.encoding, message.step, message.header.frame_id) == ("32FC1", 8, "camera")
    assert conversions.stamp_ns(message.header.stamp) == 5_000_000_007
    np.testing.assert_array_equal(conversions.depth_array(message), depth)


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
def test_times_keep_every_nanosecond(stamp):
    assert conversions.stamp_ns(conversions.time_message(TYPES, stamp)) == stamp


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


LENSES = [
    ("plumb_bob", (-0.3, 0.1, 0.001, -0.002, -0.01)),
    ("rational_polynomial", (0.4, 0.1, 0.001, 0.002, 0.01, 0.7, 0.2, 0.02)),
    ("equidistant", (0.05, -0.01, 0.004, -0.001)),
]


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
    with pytest.raises(ValueError, match=r"v\[0\] is nan"):
        conversions.pixels_to_uv([0], [np.nan], (48, 64))
    with pytest.raises(ValueError, match="u has 2 values and v has 1"):
        conversions.pixels_to_uv([0, 1], [0], (48, 64))


def columns(message):
    """Fields of a cloud by name."""
    kind = {7: "<f4", 6: "<u4"}
    layout = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [kind[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(np.asarray(message.data).tobytes(), layout)


def test_clouds_hold_every_column_in_order():
    xyz = np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)
    rgb = np.array([[255, 128, 1], [0, 2, 3]], np.uint8)
    message = sent(
        conversions.point_cloud(
            TYPES,
            7,
            "camera",
            xyz,
            rgb=rgb,
            confidence=np.array([0.5, 1], np.float64),
            left_out=None,
            vx_vy=np.array([[7, 8], [9, 10.0]]),
            id=np.array([3_000_000_000, 5]),
        )
    )
    assert (message.height, message.width, message.row_step, message.is_dense) == (
        1,
        2,
        2 * message.point_step,
        False,
    )
    found = columns(message)
    assert found.dtype.names == ("x", "y", "z", "rgb", "confidence", "vx", "vy", "id")
    np.testing.assert_array_equal(np.stack([found[name] for name in "xyz"], 1), xyz)
    np.testing.assert_array_equal(found["rgb"].view("<u4"), [0xFF8001, 0x000203])
    np.testing.assert_array_equal(found["confidence"], [0.5, 1])
    np.testing.assert_array_equal(found["vy"], [8, 10])
    np.testing.assert_array_equal(found["id"], [3_000_000_000, 5])
    with pytest.raises(ValueError, match="column confidence has 1 rows, xyz has 2"):
        conversions.point_cloud(TYPES, 7, "camera", xyz, confidence=np.ones(1))


def test_a_cloud_of_no_points_is_a_message():
    empty = np.zeros((0, 3), np.float32)
    message = sent(
        conversions.point_cloud(
            TYPES, 7, "camera", empty, rgb=empty.astype(np.uint8), vx_vy_vz=empty, id=empty[:, 0]
        )
    )
    assert message.width == 0 and len(message.data) == 0 and len(message.fields) == 8


def test_tracks_are_row_major_and_say_where_nothing_is_known():
    xyz = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    xyz[1, 0] = np.nan
    message = sent(
        conversions.tracks_message(
            TYPES,
            "camera",
            [1, 2_000_000_000],
            np.array([4, 9]),
            xyz,
            np.ones((2, 2, 2)),
            np.ones((2, 2)),
            np.ones((2, 2)),
            True,
        )
    )
    assert conversions.stamp_ns(message.header.stamp) == 2_000_000_000
    assert [conversions.stamp_ns(stamp) for stamp in message.stamps] == [1, 2_000_000_000]
    np.testing.assert_array_equal(np.reshape(message.xyz, (2, 2, 3)), xyz)
    np.testing.assert_array_equal(message.visibility, [1, 1, 0, 1])
    np.testing.assert_array_equal(message.confidence, [1, 1, 0, 1])
    assert np.isnan(np.reshape(message.uv, (2, 2, 2))[1, 0]).all()
    assert message.metric and list(message.ids) == [4, 9]


def turned():
    """A pose: 90 degrees about z, at (1, 2, 3)."""
    return np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], np.float64)


def test_poses_survive_as_quaternions():
    transform = sent(conversions.transform_message(TYPES, 9, "map", "camera", turned()))
    q = transform.transform.rotation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, 0.5**0.5, 0.5**0.5], atol=1e-12)
    parent, child, stamp, pose = conversions.transform_edge(transform)
    assert (parent, child, stamp) == ("map", "camera", 9)
    np.testing.assert_allclose(pose, turned(), atol=1e-12)


def test_odometry_says_that_its_twist_is_unknown():
    covariance = np.diag([1.0, 2, 3, 4, 5, 6])
    message = sent(conversions.odometry_message(TYPES, 9, "world", "base", turned(), covariance))
    assert (message.header.frame_id, message.child_frame_id) == ("world", "base")
    assert message.pose.pose.position.y == 2
    np.testing.assert_array_equal(np.reshape(message.pose.covariance, (6, 6)), covariance)
    assert message.twist.covariance[0] == -1


def test_a_path_ends_with_its_newest_pose():
    poses = [conversions.pose_stamped(TYPES, stamp, "world", turned()) for stamp in (1, 2, 3)]
    message = sent(conversions.path_message(TYPES, "world", poses))
    assert len(message.poses) == 3 and conversions.stamp_ns(message.header.stamp) == 3


def test_trails_join_known_positions_only_and_keep_their_colours():
    xyz = np.random.default_rng(0).random((3, 2, 3)).astype(np.float32)
    xyz[2, 1] = np.nan
    marker = sent(conversions.trail_markers(TYPES, 4, "camera", np.array([5, 6]), xyz, 0.01)).markers[0]
    assert len(marker.points) == len(marker.colors) == 2 * 3  # point 5 makes two steps, point 6 makes one
    ends = np.array([[p.x, p.y, p.z] for p in marker.points], np.float32)
    np.testing.assert_array_equal(ends[:2], xyz[:2, 0])
    again = sent(conversions.trail_markers(TYPES, 5, "camera", np.array([6, 5]), xyz[:, ::-1], 0.01)).markers[
        0
    ]
    assert marker.colors[0] == again.colors[2] != again.colors[0]  # of points 5, 5 and 6
    none = conversions.trail_markers(TYPES, 4, "camera", np.zeros(0, int), xyz[:, :0], 0.01).markers[0]
    assert none.action == 2 and not none.points
