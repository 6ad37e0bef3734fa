"""Field days: crashes, exhausted devices, crowds, nonsense on every input, and hours."""

import gc
import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_rig import COUNTS, FRAMES, TYPES, Client, Rig, RoomModel, stamp, wait
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from room import SIZE
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool, Trigger
from test_node_process import node, weights  # noqa: F401 - a fixture

from d4rt_ros import conversions
from d4rt_ros.images import ENCODINGS
from d4rt_ros.node.parameters import TABLE
from d4rt_ros.srv import FollowPoints, GetCamera, GetDepth, GetPointCloud, Query, TrackPoints, UnfollowPoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SOAK_MINUTES = float(os.environ.get("D4RT_SOAK_MINUTES", "30"))


@pytest.fixture(scope="module")
def rig():
    rig = Rig()
    rig.play(FRAMES)
    yield rig
    rig.close()


@pytest.fixture(autouse=True)
def counted():
    yield
    COUNTS["faults"] += 1


def test_a_node_that_is_killed_and_started_again_is_found_by_its_clients(weights):  # noqa: F811
    client = Client()
    try:
        settings = f"model.checkpoint:={weights}", "model.precision:=float32"
        publisher = client.node.create_publisher(Image, "image", 10)
        number, pictures = 0, np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), dtype=np.uint8)
        for _ in range(2):
            with node(client.domain, *settings) as process:
                end, answer = time.monotonic() + 60, None
                while (answer is None or not answer.success) and time.monotonic() < end:
                    publisher.publish(
                        conversions.rgb_image(TYPES, stamp(number), "camera", pictures[number % 9])
                    )
                    number += 1
                    future = client.send(Query, "query", u=[3.0], v=[1.0])  # lost if nobody is there
                    if wait(future.done, 1.0):
                        answer = future.result()
                assert answer is not None and answer.success
                waiting = client.send(Query, "query", u=[3.0] * 100, v=[1.0] * 100)
                process.send_signal(signal.SIGKILL)
                process.wait(5)
                del waiting
    finally:
        client.close()


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_device_without_memory_is_an_error_and_then_recovers(error):
    class Starved(RoomModel):
        hungry = False

        def encode(self, video, stamps):
            if self.hungry:
                raise error
            return super().encode(video, stamps)

    rig = Rig(Starved())
    try:
        rig.play(FRAMES)
        done = rig.session.worker.counters.windows_done
        rig.model.hungry = True
        rig.play(FRAMES)
        assert rig.session.worker.counters.windows_failed > 0 and "memory" in rig.session.problem
        assert rig.call(Query, "query", u=[1.0], v=[1.0]).success  # the last good window answers
        rig.model.hungry = False
        rig.play(FRAMES)
        assert rig.session.worker.counters.windows_done > done and rig.session.problem == ""
    finally:
        rig.close()


def test_a_decode_without_memory_is_done_in_smaller_batches(rig, monkeypatch):
    from room import Room

    decode = Room.decode

    def small(self, queries):
        if len(queries.u) > 200:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return decode(self, queries)

    monkeypatch.setattr(Room, "decode", small)
    answer = rig.call(Query, "query", u=[1.0] * 3000, v=[1.0] * 3000)
    assert answer.success and answer.points.width == 3000, answer.message


def test_a_camera_that_stops_and_returns_goes_on(rig):
    rig.play(FRAMES)
    rig.next += 50  # five seconds by its stamps
    rig.play(FRAMES)
    assert "no frame for" in rig.session.window.restarts
    assert rig.session.newest.window.stamps[-1] == stamp(rig.next - 1)


def test_fifty_clients_at_once_are_all_answered(rig):
    clients = [Client(f"client_{index}", rig.domain) for index in range(10)]
    try:
        for client in clients:
            client.client(Query, "/d4rt/query")
        futures = [
            client.send(Query, "query", u=[1.0] * 50, v=[2.0] * 50) for client in clients for _ in range(5)
        ]
        assert wait(lambda: all(future.done() for future in futures), 30), sum(f.done() for f in futures)
        answers = [future.result() for future in futures]
        assert all(answer.success or "ask again later" in answer.message for answer in answers)
        assert sum(answer.success for answer in answers) >= 45
    finally:
        for client in clients:
            client.close()


def test_every_parameter_refuses_every_kind_of_wrong_value(rig):
    for parameter in TABLE:
        wrong = (True, -1, 10**12, -1e9, float("nan"), float("inf"), "no such thing", [1, 2], [""])
        for value in wrong:
            if parameter.refusal(value) == "" and type(value) is type(parameter.default):
                continue
            change = [Parameter(parameter.name, value=value).to_parameter_msg()]
            result = rig.call(SetParameters, "set_parameters", parameters=change).results[0]
            assert not result.successful and result.reason, (parameter.name, value)
    assert rig.call(Query, "query", u=[1.0], v=[1.0]).success


def test_a_hundred_cycles_leave_nothing_behind():
    rig = Rig(start=False)

    def cycles(count):
        for index in range(count):
            rig.d4rt.trigger_configure()
            rig.d4rt.trigger_activate()
            if index % 10 == 0:
                rig.play(FRAMES)
            rig.d4rt.trigger_deactivate()
            rig.d4rt.trigger_cleanup()
        gc.collect()
        # The executor's pool grows to its bound as it is used; that is no leak.
        threads = [one for one in threading.enumerate() if "ThreadPool" not in one.name]
        return len(threads), psutil.Process().memory_info().rss

    try:
        threads, memory = cycles(20)
        more_threads, more_memory = cycles(80)
        assert more_threads <= threads
        assert more_memory - memory < 20 << 20
    finally:
        rig.close()


numbers = st.floats(width=32) | st.floats(-5, 40, width=32) | st.floats(0, 20, width=32)
floats = st.lists(numbers, max_size=6)
times = st.sampled_from([0, stamp(0), stamp(3), stamp(FRAMES - 1), stamp(400)]) | st.integers(-(2**61), 2**61)
stamps = times.map(
    lambda ns: conversions.time_message(TYPES, max(-(2**31) * 10**9, min(ns, 2**31 * 10**9 - 1)))
)
frames = st.sampled_from(["", "camera", "world", "odom", "\u00e9", "x" * 300])
sizes = st.integers(0, 40) | st.integers(0, 2**32 - 1)
span = {"start": stamps, "end": stamps}
pixels = {"u": floats, "v": floats}
REQUESTS = {
    "query": (Query, {**pixels, **{k: st.lists(times, max_size=6) for k in ("source", "target", "camera")}}),
    "track_points": (TrackPoints, {**pixels, **span, "stamp": stamps, "frame": frames}),
    "get_depth": (GetDepth, {**pixels, "stamp": stamps, "width": sizes, "height": sizes}),
    "get_point_cloud": (
        GetPointCloud,
        {**span, "stride": sizes, "min_confidence": numbers, "frame": frames},
    ),
    "get_camera": (GetCamera, span),
    "follow_points": (FollowPoints, {**pixels, "stamp": stamps}),
    "unfollow_points": (UnfollowPoints, {"ids": st.lists(st.integers(0, 2**32 - 1), max_size=5)}),
    "pause": (SetBool, {"data": st.just(False)}),
}
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", REQUESTS)
def test_any_request_is_answered(rig, name):
    kind, fields = REQUESTS[name]

    @FUZZ
    @given(st.fixed_dictionaries(fields))
    def ask(request):
        COUNTS["fuzz cases"] += 1
        answer = rig.call(kind, name, **request)
        assert answer.success or answer.message
        assert "Error" not in answer.message, answer.message  # a sentence, not a crash that was caught
        for pose in getattr(answer, "poses", []):
            p, q = pose.pose.position, pose.pose.orientation
            assert np.isfinite([p.x, p.y, p.z, q.x, q.y, q.z, q.w]).all()

    ask()


@FUZZ
@given(
    encoding=st.sampled_from([*ENCODINGS, "", "jpeg", "\u00e9"]),
    height=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    width=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    step=st.integers(0, 200) | st.integers(0, 2**32 - 1),
    data=st.binary(max_size=4000),
    when=times,
    frame_id=frames,
)
def test_any_image_leaves_the_node_alive(rig, encoding, height, width, step, data, when, frame_id):
    COUNTS["fuzz cases"] += 1
    message = Image(encoding=encoding, height=height, width=width, step=step, data=data)
    message.header = conversions.header(TYPES, max(-(2**31) * 10**9, min(when, 2**31 * 10**9 - 1)), frame_id)
    rig.show(message)
    rig.session.worker.submit(lambda: None).result(10)


@FUZZ
@given(
    size=st.tuples(st.integers(0, 40), st.integers(0, 40)) | st.just(SIZE),
    model=st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "kannala"]),
    d=st.lists(st.floats() | st.floats(-1, 1), max_size=9),
    k=st.lists(st.floats() | st.floats(-50, 50), min_size=9, max_size=9),
)
def test_any_calibration_leaves_poses_finite(rig, size, model, d, k):
    COUNTS["fuzz cases"] += 1
    info = CameraInfo(height=size[0], width=size[1], distortion_model=model, d=d, k=np.array(k))
    rig.publisher(CameraInfo, "camera_info").publish(info)
    rig.show(rig.image())
    result = rig.session.newest
    assert result is None or result.poses is None or np.isfinite(result.poses).all()


def test_after_all_that_it_works(rig):
    rig.publisher(CameraInfo, "camera_info").publish(CameraInfo())  # uncalibrated
    assert rig.call(Trigger, "reset").success
    rig.next = 5000
    rig.play(2 * FRAMES)
    assert rig.call(GetCamera, "get_camera").success


@pytest.mark.timeout(60 * SOAK_MINUTES + 300)
def test_memory_stays_flat_at_full_rate():
    rig = Rig()
    process, memory, asked = psutil.Process(), [], 0
    try:
        rig.listen(Image, "depth/image")[:] = []
        end, due, sample = time.monotonic() + 60 * SOAK_MINUTES, time.monotonic(), 0.0
        publisher = rig.publisher(Image, "image")
        while time.monotonic() < end:
            publisher.publish(rig.image())
            due += 1 / 30
            time.sleep(max(0.0, due - time.monotonic()))
            if time.monotonic() > sample:
                sample = time.monotonic() + max(1.0, 60 * SOAK_MINUTES / 60)
                asked += rig.call(Query, "query", u=[1.0] * 100, v=[1.0] * 100).success
                memory.append(process.memory_info().rss / 2**20)
        COUNTS["soak minutes"] += SOAK_MINUTES
        third = len(memory) // 3
        growth = np.median(memory[-third:]) - np.median(memory[third : 2 * third])
        assert asked > 10 and growth < 10, memory
    finally:
        rig.close()
