"""What `~/reset` and a new world leave of the old one: nothing, whatever is under way."""

import numpy as np
from node_rig import FRAMES, Rig, stamp, time_of, wait, xyz_of
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from d4rt_ros.srv import GetCamera, Query, TrackPoints
from d4rt_ros.stream.history import seconds


def test_a_window_under_way_and_one_that_waits_are_forgotten_too():
    rig = Rig(window__stride=4)
    try:
        rig.play(FRAMES)
        counters = rig.session.worker.counters
        rig.model.gate.clear()
        for _ in range(8):  # one window is encoded, another one waits
            rig.show(rig.image())
        assert wait(lambda: counters.windows_in == 3 and rig.session.worker.queued["windows"] == 1)
        reset = rig.send(Trigger, "reset")
        assert wait(lambda: rig.session.worker.queued["service"] == 1)
        depth = rig.session.newest
        rig.model.gate.set()
        assert wait(reset.done)
        assert reset.result().success
        assert rig.settle()
        assert (counters.windows_done, counters.windows_dropped) == (1, 2)
        assert rig.session.newest is depth, "nothing more is published of what was forgotten"
        answer = rig.call(Query, "query", u=[1.0], v=[1.0])
        assert not answer.success
        assert "no window is held yet" in answer.message
        rig.play(FRAMES)
        assert rig.session.newest.stamps[0] == stamp(rig.next - FRAMES)
        assert rig.session.newest.segment == depth.segment + 1
    finally:
        rig.close()


def test_a_stream_that_breaks_with_every_image_does_not_flood_the_log(capfd):
    rig = Rig()
    try:
        for _ in range(4):
            rig.play(1)
            rig.play(1, frame_id="other_camera")
        assert rig.session.window.counters.restarts == 7
        assert capfd.readouterr().err.count("starting over: camera frame changed") <= 1
    finally:
        rig.close()


def test_nothing_is_placed_in_a_world_that_ended():
    rig = Rig()
    try:
        rig.play(FRAMES)
        old, now = (time_of(0), time_of(FRAMES - 1)), (time_of(FRAMES), time_of(2 * FRAMES - 1))
        assert rig.call(GetCamera, "get_camera", start=old[0], end=old[1]).success
        rig.play(FRAMES, frame_id="other_camera")
        words = (
            "the world of this window ended when the stream started over; 'world' is now the one that began "
            f"at {seconds(stamp(FRAMES))}"
        )
        assert rig.call(GetCamera, "get_camera", start=old[0], end=old[1]).message == words
        point = {"u": [9.0], "v": [9.0], "start": old[0], "end": old[1], "stamp": old[1]}
        refused = rig.call(TrackPoints, "track_points", frame="world", **point)
        assert not refused.success and refused.message == words
        assert rig.call(TrackPoints, "track_points", **point).success
        assert rig.call(GetCamera, "get_camera", start=now[0], end=now[1]).success
    finally:
        rig.close()


def test_late_subscribers_get_no_map_of_a_world_that_is_gone():
    rig = Rig()
    try:
        heard = rig.listen(PointCloud2, "map_points", latched=True)
        assert wait(lambda: "map_points" in rig.d4rt._outputs.wanted("none"))
        rig.play(FRAMES)
        assert wait(lambda: heard)
        assert len(xyz_of(heard[0])) > 0
        assert rig.call(Trigger, "reset").success
        assert wait(lambda: len(heard) == 2)
        late = rig.listen(PointCloud2, "map_points", latched=True)
        assert wait(lambda: late)
        assert xyz_of(late[0]).shape == xyz_of(heard[1]).shape == (0, 3)
        assert late[0].header.frame_id == "world"
        assert [field.name for field in late[0].fields] == ["x", "y", "z", "rgb"]
        rig.play(FRAMES)
        assert wait(lambda: len(heard) == 3)
        rig.d4rt.trigger_deactivate()
        assert wait(lambda: len(heard) == 4)
        assert np.size(xyz_of(heard[3])) == 0
    finally:
        rig.close()
