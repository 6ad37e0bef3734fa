"""Hours and restarts: a node that runs at full rate, or is configured over and over, does not grow."""

import os
import time

import numpy as np
import pytest
from field import FRAMES, PATIENCE, FieldNode
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_rig import wait

from d4rt_ros.srv import GetDepth, Query

MINUTES = float(os.environ.get("D4RT_SOAK_MINUTES", "30"))
CYCLES, RATE = 100, 30
SIZE = (240, 320)
pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.mark.timeout(1200)
def test_a_hundred_lifecycle_cycles_leave_nothing_behind(tmp_path, record_property):
    node = FieldNode(tmp_path, size=(120, 160))

    def change(transition):
        assert node.call(ChangeState, "change_state", PATIENCE, transition=Transition(id=transition)).success

    def held():
        """MiB, threads and open files of the process."""
        usage = node.usage
        return usage.memory_info().rss / 2**20, usage.num_threads(), usage.num_fds()

    def cycles():
        usage = []
        for cycle in range(CYCLES):
            change(Transition.TRANSITION_DEACTIVATE)
            change(Transition.TRANSITION_CLEANUP)
            change(Transition.TRANSITION_CONFIGURE)
            change(Transition.TRANSITION_ACTIVATE)
            if cycle % 5 == 0:
                node.play(FRAMES)
            usage.append(held())
        return np.median(usage[: CYCLES // 5], 0), np.median(usage[-CYCLES // 5 :], 0)

    try:
        node.play(FRAMES)
        # The threads that answer and the C library's arenas, one for every few threads, grow to their bounds
        # as they are used, which is no leak: let them grow first.
        node.suffer("slow 0.2")
        crowd = [node.send(Query, "query", u=[1.0], v=[1.0]) for _ in range(200)]
        assert wait(lambda: all(one.done() for one in crowd), PATIENCE)
        node.suffer()
        cycles()
        early, late = cycles()
        print("MiB, threads, files:", early, late)
        assert ((late - early) < (4, 2, 2)).all()
        assert node.play(FRAMES).success
        record_property("lifecycle cycles", CYCLES)
    finally:
        node.close()


@pytest.mark.timeout(60 * MINUTES + 600)
def test_memory_stays_flat_at_full_rate(tmp_path, record_property):
    """Every output is heard, points are followed, services are called, and now and then the stream breaks."""
    node = FieldNode(tmp_path, size=SIZE)
    memory, asked, failed = [], 0, []
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8).tobytes()
    try:
        camera = node.camera()
        begun = due = sample = time.monotonic()
        while time.monotonic() < begun + 60 * MINUTES:
            image = node.image()
            image.data = picture
            camera.publish(image)
            due = max(due + 1 / RATE, time.monotonic() - 1)  # never to be caught up with in one burst
            time.sleep(max(0.0, due - time.monotonic()))
            if time.monotonic() > sample and node.heard["odometry"]:
                sample += max(0.5, MINUTES / 4)
                for kind, name, fields in (
                    (Query, "query", {"u": [1.0] * 100, "v": [1.0] * 100}),
                    (GetDepth, "get_depth", {}),
                ):
                    answer = node.call(kind, name, PATIENCE, **fields)
                    asked, failed = asked + 1, failed + [answer.message] * (not answer.success)
                memory.append(node.usage.memory_info().rss / 2**20)
            if node.next % (RATE * 120) == 0:
                node.next += 100
        minutes = (time.monotonic() - begun) / 60
        third = len(memory) // 3
        growth = np.median(memory[-third:]) - np.median(memory[third : 2 * third])
        print(
            f"{minutes:.1f} min, {node.next} images, {asked} calls,",
            f"resident MiB: {np.round(memory, 1).tolist()}",
        )
        assert failed == [] and asked >= 20 and growth < 0.05 * memory[third], (failed[:3], asked, memory)
        images = node.count("images received") + node.count("images lost by the middleware")
        record_property("soak minutes", round(minutes, 1))
        assert wait(lambda: node.heard["map_points"] and node.heard["dynamic_points"], PATIENCE) and images
    finally:
        node.close()
