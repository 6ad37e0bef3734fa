"""Images of every encoding to arrays, through real bytes (CDR), and depth both ways."""

import contextlib
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from on_the_wire import TYPES, sent

from d4rt_ros import conversions
from d4rt_ros.images import ENCODINGS, decode_compressed, decode_depth, decode_rgb

RED, GREEN, BLUE = (200, 10, 20), (30, 180, 40), (50, 60, 170)
COLOURS = np.array([RED, GREEN, BLUE], np.uint8)[np.arange(4 * 6).reshape(4, 6) % 3]  # [4, 6, 3]


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
    jpeg, png = (cv2.imencode(kind, np.zeros((8, 8, 3), np.uint8))[1] for kind in (".jpg", ".png"))
    head, pixels = png[:33].tobytes(), png[33:].tobytes()
    for data, words in (
        (b"\xff\xd8 nonsense", "neither JPEG nor PNG"),
        (b"", "of 0 bytes is neither JPEG nor PNG"),
        (b"\x89PNG\r\n\x1a\n" + 8 * b"x" + struct.pack(">II", 60_000, 60_000), "60000x60000 pixels; at most"),
        (head + png[-12:].tobytes(), "cannot be decoded"),
        (head + struct.pack(">I", 1 << 30) + pixels[4:], r"cut off: a part of it ends at 10737\d+"),
        (png[:-20].tobytes(), "is cut off"),
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
