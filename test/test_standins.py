"""What this repository relies on in five ROS packages; true of the originals and of tools/standins alike."""

import time

import cv2
import numpy as np
import pytest
import rclpy
import tf2_ros
import tf_transformations
from cv_bridge import CvBridge, CvBridgeError
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from diagnostic_updater import DiagnosticStatusWrapper, Updater
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from sensor_msgs.msg import Image, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

SECOND = 10**9


@pytest.fixture(scope="module")
def node():
    rclpy.init()
    yield rclpy.create_node("standins")
    rclpy.shutdown()


def transform(parent, child, seconds, move=(0.0, 0.0, 0.0), yaw=0.0):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = Time(nanoseconds=int(seconds * SECOND)).to_msg()
    moved, turned = message.transform.translation, message.transform.rotation
    moved.x, moved.y, moved.z = move
    turned.z, turned.w = float(np.sin(yaw / 2)), float(np.cos(yaw / 2))
    return message


def place(message):
    moved, turned = message.transform.translation, message.transform.rotation
    return np.array([moved.x, moved.y, moved.z]), 2 * np.arctan2(turned.z, turned.w)


# cv_bridge


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_colours_keep_their_meaning(encoding):
    red = {"rgb8": [200, 0, 0], "bgr8": [0, 0, 200], "rgba8": [200, 0, 0, 255], "bgra8": [0, 0, 200, 255]}
    pixel = red.get(encoding, 60)  # 0.299 * 200
    message = CvBridge().cv2_to_imgmsg(np.full((2, 3, np.size(pixel)), pixel, np.uint8).squeeze(), encoding)
    assert (message.height, message.width, message.step) == (2, 3, 3 * np.size(pixel))
    shown = CvBridge().imgmsg_to_cv2(message, "rgb8")
    assert shown.shape == (2, 3, 3)
    assert shown[1, 2].tolist() == ([60, 60, 60] if encoding == "mono8" else [200, 0, 0])


def test_padded_big_endian_rows_are_read():
    rows = np.zeros((2, 4), ">u2")
    rows[:, :3] = [[1, 2, 300], [4, 5, 6]]
    message = Image(height=2, width=3, step=8, encoding="16UC1", is_bigendian=1)
    message.data.frombytes(rows.tobytes())
    assert CvBridge().imgmsg_to_cv2(message).tolist() == [[1, 2, 300], [4, 5, 6]]


def test_sixteen_bits_are_scaled_to_eight():
    message = CvBridge().cv2_to_imgmsg(np.array([[0, 257, 65535]], np.uint16), "mono16")
    assert CvBridge().imgmsg_to_cv2(message, "mono8").tolist() == [[0, 1, 255]]


def test_bayer_pattern_names_the_first_row():
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[::2, ::2] = 200  # rggb: red at the even rows and columns
    image = CvBridge().imgmsg_to_cv2(CvBridge().cv2_to_imgmsg(mosaic, "bayer_rggb8"), "rgb8")
    assert image[4, 4].tolist() == [200, 0, 0]


def test_unknown_and_unfit_encodings_are_refused():
    with pytest.raises(CvBridgeError):
        CvBridge().imgmsg_to_cv2(Image(height=1, width=1, step=1, encoding="plaid8", data=[0]))
    with pytest.raises(CvBridgeError):
        CvBridge().cv2_to_imgmsg(np.zeros((2, 2), np.uint8), "rgb8")


def test_compressed_images_come_back():
    image = cv2.resize(np.arange(0, 240, 20, np.uint8).reshape(2, 2, 3), (16, 16))
    message = CvBridge().cv2_to_compressed_imgmsg(image, "png")
    assert (CvBridge().compressed_imgmsg_to_cv2(message) == image).all()
    assert (CvBridge().compressed_imgmsg_to_cv2(message, "rgb8") == image[..., ::-1]).all()


# sensor_msgs_py


def test_clouds_come_back_with_mixed_fields():
    fields = [
        PointField(name="x", offset=0, datatype=PointField.FLOAT32, count=1),
        PointField(name="id", offset=4, datatype=PointField.UINT32, count=1),
    ]
    cloud = point_cloud2.create_cloud(Header(frame_id="camera"), fields, [(1.5, 7), (float("nan"), 8)])
    assert (cloud.width, cloud.height, cloud.point_step, cloud.header.frame_id) == (2, 1, 8, "camera")
    assert point_cloud2.read_points(cloud, ["id"])["id"].tolist() == [7, 8]
    assert point_cloud2.read_points(cloud, skip_nans=True)["id"].tolist() == [7]
    assert point_cloud2.read_points(cloud, uvs=[1])["id"].tolist() == [8]


def test_clouds_come_back_as_plain_arrays():
    points = np.arange(12, dtype=np.float32).reshape(4, 3)
    cloud = point_cloud2.create_cloud_xyz32(Header(), points)
    assert (point_cloud2.read_points_numpy(cloud, ["z", "x"]) == points[:, [2, 0]]).all()


# tf_transformations


def test_quaternions_turn_about_the_right_axis():
    quaternion = tf_transformations.quaternion_from_euler(0.0, 0.0, np.pi / 2)
    assert np.allclose(quaternion, [0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    matrix = tf_transformations.quaternion_matrix(quaternion)
    assert matrix.shape == (4, 4)
    assert np.allclose(matrix[:3, :3] @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(tf_transformations.quaternion_from_matrix(matrix), quaternion)
    assert np.allclose(tf_transformations.euler_from_quaternion(quaternion), [0, 0, np.pi / 2])


def test_euler_axes_are_static_or_rotating():
    static = tf_transformations.euler_matrix(0.1, 0.2, 0.3, "sxyz")
    assert np.allclose(static, tf_transformations.euler_matrix(0.3, 0.2, 0.1, "rzyx"))
    assert not np.allclose(static, tf_transformations.euler_matrix(0.1, 0.2, 0.3, "rxyz"))


def test_product_of_quaternions_applies_the_second_first():
    turn = tf_transformations.quaternion_from_euler
    product = tf_transformations.quaternion_multiply(turn(0, 0, np.pi / 2), turn(np.pi / 2, 0, 0))
    assert np.allclose(tf_transformations.quaternion_matrix(product)[:3, :3] @ [0, 1, 0], [0, 0, 1])


# tf2_ros


def filled():
    buffer = tf2_ros.Buffer()
    buffer.set_transform(transform("map", "odom", 10, (1.0, 0.0, 0.0), np.pi / 2), "test")
    buffer.set_transform(transform("map", "odom", 12, (3.0, 0.0, 0.0)), "test")
    buffer.set_transform_static(transform("odom", "camera", 0, (1.0, 0.0, 0.0)), "test")
    return buffer


def test_transforms_are_chained_and_interpolated():
    move, yaw = place(filled().lookup_transform("map", "camera", Time(seconds=10.5)))
    assert np.allclose(yaw, 3 / 8 * np.pi)
    assert np.allclose(move, [1.5 + np.cos(yaw), np.sin(yaw), 0])


def test_look_up_goes_down_the_tree_too_and_zero_is_the_newest():
    found = filled().lookup_transform("camera", "map", Time())
    assert (found.header.frame_id, found.child_frame_id, found.header.stamp.sec) == ("camera", "map", 12)
    assert np.allclose(place(found)[0], [-4, 0, 0])


@pytest.mark.parametrize(
    ("target", "source", "seconds", "error"),
    [
        ("map", "nowhere", 11, tf2_ros.LookupException),
        ("map", "island", 11, tf2_ros.ConnectivityException),
        ("map", "camera", 13, tf2_ros.ExtrapolationException),
        ("map", "camera", 9, tf2_ros.ExtrapolationException),
        ("/map", "camera", 11, tf2_ros.InvalidArgumentException),
    ],
)
def test_what_cannot_be_looked_up_says_why(target, source, seconds, error):
    buffer = filled()
    buffer.set_transform_static(transform("sea", "island", 0), "test")
    assert not buffer.can_transform(target, source, Time(seconds=seconds))
    with pytest.raises(error) as caught:
        buffer.lookup_transform(target, source, Time(seconds=seconds))
    assert isinstance(caught.value, tf2_ros.TransformException)
    assert str(caught.value)


def test_waiting_ends_with_the_timeout():
    started = time.monotonic()
    assert not filled().can_transform("map", "nowhere", Time(), Duration(seconds=0.15))
    assert 0.14 < time.monotonic() - started < 1.0


def test_old_transforms_are_forgotten():
    buffer = filled()
    for seconds in (21, 22):  # some versions of tf2 forget when the next one comes
        buffer.set_transform(transform("map", "odom", seconds), "test")
    assert not buffer.can_transform("map", "camera", Time(seconds=10.5))
    assert buffer.can_transform("map", "camera", Time(seconds=12))
    buffer.clear()
    assert not buffer.can_transform("map", "camera", Time(seconds=12))


def test_broadcast_transforms_are_heard(node):
    buffer = tf2_ros.Buffer(node=node)
    listener = tf2_ros.TransformListener(buffer, node)
    tf2_ros.StaticTransformBroadcaster(node).sendTransform(transform("base", "camera", 0, (0.0, 0.0, 1.0)))
    broadcaster = tf2_ros.TransformBroadcaster(node)
    deadline = time.monotonic() + 10
    while not buffer.can_transform("odom", "camera", Time()) and time.monotonic() < deadline:
        broadcaster.sendTransform([transform("odom", "base", 5, (1.0, 0.0, 0.0))])
        rclpy.spin_once(node, timeout_sec=0.05)
    assert np.allclose(place(buffer.lookup_transform("odom", "camera", Time()))[0], [1, 0, 1])
    listener.unregister()


# diagnostic_updater


def test_summaries_merge_to_the_worst():
    status = DiagnosticStatusWrapper()
    status.summary(DiagnosticStatus.OK, "fine")
    status.mergeSummary(DiagnosticStatus.WARN, "slow")
    status.mergeSummary(DiagnosticStatus.ERROR, "hot")
    status.add("rate", "3")  # as text: the original takes a number, and the message then cannot be sent
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "slow; hot")
    assert [(pair.key, pair.value) for pair in status.values] == [("rate", "3")]


def test_updater_publishes_what_its_tasks_say(node):
    heard = []
    subscription = node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    updater = Updater(node, period=0.1)
    updater.setHardwareID("camera 7")

    def stream(stat):
        stat.summary(DiagnosticStatus.WARN, "no frames")
        stat.add("frames", "0")
        return stat

    updater.add("stream", stream)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
        found = [status for array in heard for status in array.status if status.message == "no frames"]
        if found:
            break
    assert (found[0].name, found[0].level, found[0].hardware_id) == (
        "standins: stream",
        DiagnosticStatus.WARN,
        "camera 7",
    )
    assert found[0].values[0].key == "frames"
    assert updater.removeByName("stream") and not updater.removeByName("stream")
    node.destroy_subscription(subscription)
