"""What the node publishes, against a room that is known; and that it computes nothing for nobody."""

import numpy as np
import pytest
from cv_bridge import CvBridge
from nav_msgs.msg import Odometry, Path
from node_rig import FRAMES, TYPES, Rig, RoomModel, stamp, wait, xyz_of
from room import SIZE, Ball, Room, camera_path
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from sensor_msgs_py import point_cloud2
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from d4rt_ros import conversions
from d4rt_ros.model import Queries
from d4rt_ros.msg import Tracks

BALLS = (Ball((0.8, 0.0, 3.0), (0.4, 0.0, 0.0), 0.8),)
LAST = FRAMES - 1


@pytest.fixture(scope="module")
def heard():
    """One message of every output, after the first window."""
    rig = Rig(RoomModel(balls=BALLS), tf__mode="world_to_camera", points__stride=4)
    kinds = {
        "depth/image": Image,
        "depth/camera_info": CameraInfo,
        "points": PointCloud2,
        "dynamic_points": PointCloud2,
        "map_points": PointCloud2,
        "tracks": Tracks,
        "tracks/points": PointCloud2,
        "tracks/markers": MarkerArray,
        "odometry": Odometry,
        "path": Path,
        "camera_info": CameraInfo,
        "/tf": TFMessage,
    }
    boxes = {topic: rig.listen(kind, topic, latched=topic == "map_points") for topic, kind in kinds.items()}
    assert wait(lambda: len(rig.d4rt._outputs.wanted("world_to_camera")) == len(kinds))
    rig.play(FRAMES)
    assert wait(lambda: all(boxes.values())), {topic: len(box) for topic, box in boxes.items()}
    yield {topic: box[0] for topic, box in boxes.items()}
    rig.close()


def room():
    return Room(tuple(stamp(k) for k in range(FRAMES)), balls=BALLS)


def depth_of_room():
    v, u = np.meshgrid(
        (np.arange(SIZE[0]) + 0.5) / SIZE[0], (np.arange(SIZE[1]) + 0.5) / SIZE[1], indexing="ij"
    )
    import torch

    queries = Queries.make(torch.from_numpy(u.ravel()), torch.from_numpy(v.ravel()), LAST, LAST, LAST)
    return room().decode(queries).xyz[:, 2].reshape(SIZE).numpy()


def world_pose(number):
    """Where the camera is by the room: axes of the first camera, turned to x forward, z up."""
    poses = camera_path(np.array([stamp(0), stamp(number)]) / 1e9)
    moved = (np.linalg.inv(poses[0]) @ poses[1])[:3, 3]
    return np.array([moved[2], -moved[0], -moved[1]])


def test_every_message_has_the_stamp_and_frame_of_its_image(heard):
    for topic, message in heard.items():
        header = message.transforms[0].header if topic == "/tf" else None
        header = message.markers[0].header if topic == "tracks/markers" else header or message.header
        world = topic in ("map_points", "odometry", "path", "/tf")
        assert header.frame_id == ("world" if world else "camera"), topic
        assert conversions.stamp_ns(header.stamp) == stamp(LAST), topic


def test_depth_is_read_by_cv_bridge_and_is_that_of_the_room(heard):
    depth = CvBridge().imgmsg_to_cv2(heard["depth/image"])
    assert depth.shape == SIZE and depth.dtype == np.float32
    error = np.abs(depth / depth_of_room() - 1)
    assert np.median(error) < 0.04  # one pixel in 16 was asked for, the others are filled in
    info = heard["depth/camera_info"]
    assert (info.width, info.height) == (SIZE[1], SIZE[0]) and info.k[0] == pytest.approx(20, rel=0.02)


def test_points_are_read_by_sensor_msgs_py_and_project_to_their_pixels(heard):
    cloud = heard["points"]
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb", "confidence"]
    xyz = point_cloud2.read_points_numpy(cloud, ["x", "y", "z"])
    assert len(xyz) == (SIZE[0] // 4) * (SIZE[1] // 4)
    u, v = xyz[:, 0] / xyz[:, 2] * 20 + 16, xyz[:, 1] / xyz[:, 2] * 22 + 12
    np.testing.assert_allclose(u % 4, 2.0, atol=0.01)
    np.testing.assert_allclose(v % 4, 2.0, atol=0.01)


def test_only_what_moves_is_dynamic_and_has_its_velocity(heard):
    cloud = heard["dynamic_points"]
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "vx", "vy", "vz", "confidence"]
    xyz = xyz_of(cloud)
    assert 0 < len(xyz) < heard["points"].width / 2
    speed = np.linalg.norm(point_cloud2.read_points_numpy(cloud, ["vx", "vy", "vz"]), axis=1)
    np.testing.assert_allclose(speed, 0.4, rtol=0.1)
    assert heard["map_points"].width <= heard["points"].width - len(xyz)


def test_tracks_run_through_the_window(heard):
    tracks = heard["tracks"]
    assert [conversions.stamp_ns(one) for one in tracks.stamps] == [stamp(k) for k in range(FRAMES)]
    xyz = np.reshape(tracks.xyz, (FRAMES, len(tracks.ids), 3))
    newest = xyz_of(heard["tracks/points"])
    np.testing.assert_array_equal(xyz[-1][np.isfinite(xyz[-1]).all(-1)], newest)
    assert len(heard["tracks/markers"].markers[0].points) > len(tracks.ids)


def test_odometry_path_and_tf_agree_with_the_room(heard):
    position = heard["odometry"].pose.pose.position
    np.testing.assert_allclose([position.x, position.y, position.z], world_pose(LAST), atol=1e-3)
    assert heard["odometry"].child_frame_id == "camera"
    edge = heard["/tf"].transforms[0]
    assert (edge.header.frame_id, edge.child_frame_id) == ("world", "camera")
    np.testing.assert_allclose(conversions.transform_edge(edge)[3][:3, 3], world_pose(LAST), atol=1e-3)
    path = heard["path"].poses
    assert [conversions.stamp_ns(one.header.stamp) for one in path] == [stamp(k) for k in range(FRAMES)]


def test_nothing_is_computed_that_nobody_listens_to():
    rig = Rig()
    try:
        rig.play(FRAMES)
        result = rig.session.newest
        assert result is not None and result.poses is not None
        assert result.depth is result.points is result.dynamic is result.map_points is result.tracks is None
        rig.listen(Image, "depth/image")
        assert wait(lambda: rig.d4rt._outputs.wanted("none") == {"depth/image"})
        rig.play(FRAMES // 2)
        assert rig.session.newest.depth is not None and rig.session.newest.points is None
    finally:
        rig.close()


def test_compressed_images_are_seen(tmp_path):
    import cv2

    rig = Rig(image_transport="compressed")
    try:
        picture = np.full((*SIZE, 3), (200, 100, 50), np.uint8)
        data = cv2.imencode(".png", picture[:, :, ::-1])[1]
        for number in range(FRAMES):
            message = CompressedImage(format="png")
            message.header = conversions.header(TYPES, stamp(number), "camera")
            message.data.frombytes(data.tobytes())
            rig.show(message, "image/compressed")
        assert rig.settle() and len(rig.model.videos) == 1
        assert rig.model.videos[0][0, :, 5, 5].tolist() == [200, 100, 50]
    finally:
        rig.close()


def test_lens_distortion_is_taken_out_and_pixels_stay_those_of_the_published_image():
    from d4rt_ros.srv import Query

    rig = Rig()
    try:
        lens = (-0.2, 0.05, 0.0, 0.0, 0.0)
        k = np.array([[20.0, 0, 16], [0, 22, 12], [0, 0, 1]])
        info = conversions.camera_info(TYPES, 0, "camera", SIZE, k, "plumb_bob", lens)
        rig.tell(info, "camera_info", lambda: rig.session.inputs.camera is not None)
        rig.play(FRAMES)
        answer = rig.call(Query, "query", u=[4.0], v=[5.0])
        assert answer.success, answer.message
        camera = conversions.camera(info)
        moved = camera.to_undistorted(np.array([[4.5 / SIZE[1], 5.5 / SIZE[0]]]))[0]
        x, y, z = xyz_of(answer.points)[0]
        np.testing.assert_allclose([x / z * 20 + 16, y / z * 22 + 12], moved * [SIZE[1], SIZE[0]], atol=1e-3)
        found = point_cloud2.read_points_numpy(answer.points, ["u", "v"])[0]
        np.testing.assert_allclose(found, [4, 5], atol=0.02)
        assert rig.session.newest.intrinsics_known
        np.testing.assert_allclose(rig.session.newest.intrinsics, k)
    finally:
        rig.close()
