"""Nonsense in every request, goal, setting and image: never a crash, a hang, or a pose that is none."""

import numpy as np
import pytest
from field import FRAMES, NO_TYPE, PATIENCE, FieldNode, finite
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from node_rig import TYPES, stamp, wait
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from room import SIZE
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger

from d4rt_ros import conversions
from d4rt_ros.action import TrackAll
from d4rt_ros.images import ENCODINGS
from d4rt_ros.node.interface import SERVICES
from d4rt_ros.node.parameters import TABLE
from d4rt_ros.srv import FollowPoints, GetCamera, GetDepth, GetPointCloud, Query, TrackPoints, UnfollowPoints

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(1200)]
FUZZ = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def held_window(node):
    """Something to ask about, at the stamps of ``times``, and after the test it still works."""
    start_over(node)
    yield
    node.camera(CameraInfo, "camera_info").publish(CameraInfo())  # uncalibrated
    start_over(node)
    assert node.call(Query, "query", u=[1.0], v=[1.0]).success
    assert node.crashes() == [] and "a request failed" not in node.log, node.log[-3000:]


def start_over(node):
    """The first window of the room, whatever was before it."""
    assert node.call(Trigger, "reset", PATIENCE).success
    node.next = 0
    assert node.play(FRAMES).success


numbers = st.floats(width=32) | st.floats(-5, 40, width=32) | st.floats(0, 20, width=32)
pixel = st.lists(numbers, max_size=6) | st.lists(st.floats(0, 20, width=32), min_size=3, max_size=3)
held = st.sampled_from([0, *(stamp(number) for number in range(FRAMES)), stamp(400)])
times = held | st.integers(-(2**63), 2**63 - 1)
stamps = held.map(lambda ns: conversions.time_message(TYPES, ns)) | st.builds(
    TYPES.make,
    st.just("builtin_interfaces/msg/Time"),
    sec=st.integers(-(2**31), 2**31 - 1),
    nanosec=st.integers(0, 2**32 - 1),
)
frames = st.sampled_from(["", "camera", "world", "odom", "\u00e9", "x" * 300])
sizes = st.integers(0, 40) | st.integers(0, 2**32 - 1)
sure = st.floats(0, 1, width=32) | numbers
span = {"start": stamps, "end": stamps}
points = {"u": pixel, "v": pixel}
REQUESTS = {
    "query": (Query, {**points, **{k: st.lists(times, max_size=6) for k in ("source", "target", "camera")}}),
    "track_points": (TrackPoints, {**points, **span, "stamp": stamps, "frame": frames}),
    "get_depth": (GetDepth, {**points, "stamp": stamps, "width": sizes, "height": sizes}),
    "get_point_cloud": (GetPointCloud, {**span, "stride": sizes, "min_confidence": sure, "frame": frames}),
    "get_camera": (GetCamera, span),
    "follow_points": (FollowPoints, {**points, "stamp": stamps}),
    "unfollow_points": (UnfollowPoints, {"ids": st.lists(st.integers(0, 2**32 - 1), max_size=5)}),
    "pause": (SetBool, {"data": st.booleans()}),
    "reset": (Trigger, {}),
}


def test_no_service_is_left_out():
    assert REQUESTS.keys() == SERVICES.keys()


@pytest.mark.parametrize("name", REQUESTS)
def test_any_request_is_answered(node, name, record_property):
    kind, fields = REQUESTS[name]
    cases, good = [], []

    @FUZZ
    @given(st.fixed_dictionaries(fields))
    def ask(request):
        cases.append(request)
        answer = node.call(kind, name, PATIENCE, **request)
        good.append(answer.success)
        assert answer.success or answer.message
        assert finite(answer)

    ask()
    assert any(good), "no request went deep"
    assert node.call(SetBool, "pause", data=False).success
    record_property("fuzz cases", len(cases))


def test_any_goal_ends(node, record_property):
    client = ActionClient(node.node, TrackAll, "/d4rt/track_all")
    assert client.wait_for_server(PATIENCE)
    cases = []

    @FUZZ
    @given(
        st.fixed_dictionaries({**span, "stride": sizes, "min_confidence": sure, "frame": frames}),
        st.booleans(),
    )
    @example({**dict.fromkeys(span, TYPES.make("builtin_interfaces/msg/Time")), "stride": 0,
              "min_confidence": 1.0, "frame": ""}, False)  # fmt: skip
    def send(goal, cancelled):
        cases.append(goal)
        sent = client.send_goal_async(TrackAll.Goal(**goal))
        assert wait(sent.done, PATIENCE) and sent.result().accepted
        if cancelled:
            sent.result().cancel_goal_async()
        ended = sent.result().get_result_async()
        assert wait(ended.done, PATIENCE), "the goal never ended"
        result = ended.result().result
        assert result.success or result.message and "Error: " not in result.message

    send()
    record_property("fuzz cases", len(cases))


def test_any_setting_is_answered(node, record_property):
    cases = []
    value = st.builds(
        ParameterValue,
        type=st.integers(0, 9),
        bool_value=st.booleans(),
        integer_value=st.integers(-(2**63), 2**63 - 1),
        double_value=st.floats(),
        string_value=frames,
    )
    names = st.sampled_from([*(one.name for one in TABLE), "", "use_sim_time", "no.such", "\u00e9"])

    @FUZZ
    @given(st.lists(st.builds(Parameter, name=names, value=value), max_size=3))
    def change(parameters):
        cases.append(parameters)
        parameters = [one for one in parameters if one.name != "use_sim_time"]  # would stop its clock
        answer = node.call(SetParameters, "set_parameters", PATIENCE, parameters=parameters)
        assert len(answer.results) == len(parameters)
        assert all(one.successful or one.reason for one in answer.results)

    change()
    record_property("fuzz cases", len(cases))


def test_a_setting_of_no_type_at_all_does_not_end_the_node(node):
    change = Parameter(name="tf.mode", value=ParameterValue(type=NO_TYPE))
    future = node.send(SetParameters, "set_parameters", parameters=[change])
    assert wait(lambda: f"a callback failed: ValueError: {NO_TYPE} is not a valid" in node.log, PATIENCE)
    assert not future.done()  # rclpy's own service: there is nobody to answer


@st.composite
def images(draw):
    """Images of which every second one has as many bytes as it says."""
    encoding = draw(st.sampled_from([*ENCODINGS, "", "jpeg", "\u00e9"]))
    height, width, step = (draw(st.integers(0, 40) | st.integers(0, 2**32 - 1)) for _ in range(3))
    data = draw(st.binary(max_size=500))
    if draw(st.booleans()):
        height, width = draw(st.sampled_from([SIZE, (2, 2), (1, 1), (4, 6)]))
        step = 8 * width
        data = (data + b"\x80") * (height * step // (len(data) + 1) + 1)
    message = Image(encoding=encoding, height=height, width=width, step=step, data=data)
    message.is_bigendian = draw(st.sampled_from([0, 1, 255]))
    message.header.stamp, message.header.frame_id = draw(stamps), draw(frames)
    return message


def heard(node):
    """Images that came, or that the node knows not to have come: a busy machine's middleware loses some."""
    return node.count("images received") + node.count("images lost by the middleware")


def test_any_image_leaves_the_node_alive(node, record_property):
    cases, before = [], heard(node)

    @FUZZ
    @given(images())
    def show(message):
        cases.append(message)
        node.camera().publish(message)
        assert finite(node.call(GetCamera, "get_camera", PATIENCE))

    show()
    assert heard(node) == before + len(cases)
    record_property("fuzz cases", len(cases))


CALIBRATIONS = [("plumb_bob", 5), ("plumb_bob", 4), ("rational_polynomial", 8), ("rational_polynomial", 14),
                ("equidistant", 4), ("fisheye", 4), ("", 0), ("kannala", 3), ("plumb_bob", 9)]  # fmt: skip


@st.composite
def calibrations(draw):
    """Calibrations of which many belong to the image, and every number of which may be any."""
    model, count = draw(st.sampled_from(CALIBRATIONS))
    number = draw(st.sampled_from([st.floats(-0.3, 0.3), st.floats(-50, 50), st.floats()]))
    height, width = draw(st.just(SIZE) | st.tuples(sizes, sizes))
    k = [20.0, 0, 16, 0, 22, 12, 0, 0, 1]
    if draw(st.booleans()):
        k = draw(st.lists(st.floats(-50, 50) | st.floats(), min_size=9, max_size=9))
    bins, corner = draw(st.tuples(st.integers(0, 3), st.integers(0, 3))), draw(st.integers(0, 3) | sizes)
    info = CameraInfo(height=height, width=width, distortion_model=model)
    info.k, info.d = np.array(k), draw(st.lists(number, min_size=count, max_size=count))
    info.p = np.array(draw(st.lists(st.floats(), min_size=12, max_size=12)))
    info.header.stamp, info.header.frame_id = draw(stamps), draw(frames)
    if draw(st.booleans()):
        info.binning_x, info.binning_y = bins
        info.roi = RegionOfInterest(x_offset=corner, width=draw(sizes), height=draw(sizes))
    return info


def test_any_calibration_leaves_poses_finite(node, record_property):
    cases, known = [], []
    camera = node.camera(CameraInfo, "camera_info")

    @FUZZ
    @given(calibrations())
    def show(info):
        cases.append(info)
        camera.publish(info)
        node.next = 0
        for _ in range(FRAMES):
            node.camera().publish(node.image())
        for kind, name, fields in (
            (GetCamera, "get_camera", {}),
            (Query, "query", {"u": [0.0, 16.0], "v": [0.0, 12.0]}),
            (TrackPoints, "track_points", {"u": [16.0], "v": [12.0], "frame": "world"}),
        ):
            answer = node.call(kind, name, PATIENCE, **fields)
            assert answer.success or answer.message
            assert finite(answer)
            known.append(name == "get_camera" and answer.intrinsics_known)

    show()
    assert any(known), "no calibration was used"
    record_property("fuzz cases", len(cases))


def test_any_compressed_image_leaves_the_node_alive(tmp_path, record_property):
    node, cases = FieldNode(tmp_path, "image_transport:=compressed"), []
    try:
        import cv2

        files = [
            cv2.imencode(kind, np.full((*SIZE, 3), 90, np.uint8))[1].tobytes() for kind in (".jpg", ".png")
        ]
        camera = node.camera(CompressedImage, "image/compressed")

        @FUZZ
        @given(
            st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png", ""]),
            st.sampled_from([*files, b""]),
            st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=8)), max_size=3),
            stamps,
        )
        def show(kind, file, scratches, when):
            for place, new in scratches:
                file = file[:place] + new + file[place + len(new) :]
            cases.append(file)
            message = CompressedImage(format=kind, data=file)
            message.header.stamp = when
            camera.publish(message)
            assert node.call(GetCamera, "get_camera", PATIENCE).message != "none"

        show()
        assert heard(node) == len(cases)
        assert 0 < node.count("images refused") < len(cases)
        record_property("fuzz cases", len(cases))
    finally:
        node.close()
