"""The node killed while clients wait, and started again."""

import threading
import time

import pytest
from field import FRAMES, PATIENCE, FieldNode
from node_rig import Client, wait
from rclpy.action import ActionClient

from d4rt_ros.action import TrackAll
from d4rt_ros.srv import GetDepth, Query

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(600)]


class Patient:
    """A client that asks again and again, and gives a call up after a second."""

    def __init__(self, domain, kind, name, fields):
        self.client, self.call = Client(f"patient_{name}", domain), (kind, name, fields)
        self.answered, self.lost, self.ended = [], 0, threading.Event()
        self.thread = threading.Thread(target=self.ask, daemon=True)

    def ask(self):
        kind, name, fields = self.call
        while not self.ended.is_set():
            future = self.client.send(kind, name, **fields)
            if wait(future.done, 1.0):
                self.answered.append((time.monotonic(), future.result().success))
            else:
                self.lost += 1

    def close(self):
        self.ended.set()
        self.thread.join(PATIENCE)
        self.client.close()


def test_a_node_that_is_killed_and_started_again_is_found_by_its_clients(tmp_path):
    node = FieldNode(tmp_path)
    asked = [(Query, "query", {"u": [3.0] * 500, "v": [1.0] * 500}), (GetDepth, "get_depth", {})] * 2
    clients = [Patient(node.domain, *one) for one in asked]
    try:
        node.play(FRAMES)
        for client in clients:
            client.thread.start()
        assert wait(lambda: all(client.answered for client in clients), PATIENCE)
        for _ in range(3):
            node.suffer("slow 3")  # so that calls are under way
            time.sleep(0.5)
            before = [client.lost for client in clients]
            node.kill()
            assert wait(lambda before=before: [c.lost for c in clients] > before, PATIENCE)
            node.suffer()
            node.start()
            started = time.monotonic()
            node.play(FRAMES)
            assert wait(
                lambda started=started: all(
                    any(when > started and success for when, success in list(client.answered))
                    for client in clients
                ),
                PATIENCE,
            )
        assert all(client.thread.is_alive() for client in clients)
    finally:
        for client in clients:
            client.close()
        node.close()


def test_a_goal_of_a_killed_node_can_be_sent_again_to_the_next_one(tmp_path):
    node = FieldNode(tmp_path)
    try:
        node.play(FRAMES)
        client = ActionClient(node.node, TrackAll, "/d4rt/track_all")
        assert client.wait_for_server(PATIENCE)
        node.suffer("slow 1")
        sent = client.send_goal_async(TrackAll.Goal(stride=1))
        assert wait(sent.done, PATIENCE) and sent.result().accepted
        lost = sent.result().get_result_async()
        node.kill()
        node.suffer()
        node.start()
        node.play(FRAMES)
        assert client.wait_for_server(PATIENCE) and not lost.done()
        time.sleep(0.5)
        sent = client.send_goal_async(TrackAll.Goal(stride=4))
        assert wait(sent.done, PATIENCE) and sent.result().accepted
        ended = sent.result().get_result_async()
        assert wait(ended.done, PATIENCE) and ended.result().result.success
    finally:
        node.close()
