"""Camera and requests are taken by threads of their own, while the executor does nothing."""

import threading
import time

import pytest
import rclpy
from node_rig import TYPES, Client, Rig, RoomModel, stamp, wait
from numpy import uint8, zeros
from rclpy.qos import QoSProfile, ReliabilityPolicy
from room import SIZE
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from d4rt_ros import conversions
from d4rt_ros.node import listener as listeners
from d4rt_ros.node.inputs import SubscriptionEventCallbacks
from d4rt_ros.node.interface import SERVICES
from d4rt_ros.node.listener import Listener, PastExecutor
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.node.run import autostart
from d4rt_ros.node.wire import image_bytes
from d4rt_ros.srv import Query


@pytest.fixture
def idle():
    """An active node that nobody spins, and a client of it."""
    client, context = Client(), rclpy.Context()
    rclpy.init(context=context, domain_id=client.domain)
    node = D4RTNode(lambda values: RoomModel(), context=context)
    assert autostart(node)
    yield client, node
    node.close()
    context.try_shutdown()
    node.destroy_node()
    client.close()


def show(client, node):
    """Publish an image until the node has one more."""
    before = node.session.inputs.counters.images
    publisher = client.node.create_publisher(Image, "image", 10)
    image = conversions.rgb_image(TYPES, stamp(before), "camera", zeros((*SIZE, 3), uint8))
    for _ in range(20):
        publisher.publish(image)
        if wait(lambda: node.session.inputs.counters.images > before, 0.5):
            return True
    return False


def test_an_executor_that_is_busy_holds_up_neither_images_nor_requests(idle):
    client, node = idle
    assert show(client, node)
    assert client.call(SetBool, "pause", data=True).success
    assert node.session.paused


def test_an_executor_is_told_to_leave_messages_requests_and_their_events_alone(idle):
    """An event that it waits for would wake it with every image."""
    _, node = idle
    entities = (*node.subscriptions, *node.services)
    own = [entity for entity in entities if isinstance(entity.callback_group, PastExecutor)]
    assert len(own) == len(("image", "camera_info")) + len(SERVICES)
    events = [event for entity in own for event in getattr(entity, "event_handlers", ())]
    assert len(events) > len(("incompatible_qos", "message_lost"))
    assert not any(entity.callback_group.can_execute(entity) for entity in (*own, *events))


def test_events_are_heard_while_the_executor_does_nothing():
    rig = Client()
    context, heard = rclpy.Context(), []
    rclpy.init(context=context, domain_id=rig.domain)
    node, failing = rclpy.create_node("deaf", context=context), threading.Event()

    def mismatch(event):
        heard.append(event.total_count)
        if not failing.is_set():
            failing.set()
            raise RuntimeError("no luck")

    subscription = node.create_subscription(
        String,
        "topic",
        lambda message: None,
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        callback_group=PastExecutor(),
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=mismatch),
    )
    listener = Listener(node, "deaf", {subscription: lambda message, info: None})
    try:
        lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        rig.node.create_publisher(String, "topic", lossy)
        assert wait(lambda: heard == [1])
        rig.node.create_publisher(String, "topic", lossy)
        assert wait(lambda: heard == [1, 2]), "what the first call raised must not end the thread"
    finally:
        listener.close()
        context.try_shutdown()
        node.destroy_node()
        rig.close()


def test_executors_run_everything_where_rclpy_has_no_such_wait_set(monkeypatch):
    monkeypatch.setattr(listeners, "AVAILABLE", False)
    rig = Rig(query__queue=12)
    try:
        rig.play(9)
        rig.model.gate.clear()
        rig.session.worker.submit(lambda: rig.model.gate.wait(20))  # the others wait for the device
        calls = [rig.send(Query, "query", u=[1.0], v=[1.0]) for _ in range(12)]
        assert wait(lambda: rig.session.worker.queued["service"] == 12)
        rig.show(rig.image())  # all the same
        rig.model.gate.set()
        assert wait(lambda: all(call.done() and call.result().success for call in calls))
        assert rig.session.inputs.counters.refused == 0 and rig.session.window.counters.out_of_order == 0
    finally:
        rig.close()


@pytest.mark.parametrize("info", [{}, {"publication_sequence_number": None}])
def test_images_without_a_number_are_taken_and_no_gap_is_counted(idle, info):
    """Humble gives none, Jazzy None where the middleware has none."""
    client, node = idle
    inputs = node.session.inputs
    image = conversions.rgb_image(TYPES, stamp(0), "camera", zeros((*SIZE, 3), uint8))
    inputs._takers[inputs._subscriptions["image"]](image_bytes(image), info)
    assert inputs.counters.images == 1 and inputs.counters.gaps.missed is None


def test_what_a_callback_raises_is_logged_and_the_next_one_is_taken(idle, monkeypatch, capfd):
    client, node = idle
    failed = []

    def fail(frame):
        failed.append(frame)
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(node.session.inputs, "_on_frame", fail)
        assert show(client, node) and wait(lambda: failed)
        assert wait(lambda: "a callback failed: RuntimeError: no luck" in "".join(capfd.readouterr()))
    assert show(client, node)
    assert wait(lambda: node.session.window.counters.received > 0)


def test_threads_end_with_the_node(idle):
    client, node = idle
    requests, camera = node._requests._listener._threads, node.session.inputs._listener._threads
    assert all(thread.is_alive() for thread in (*requests, *camera))
    node.close()
    assert not camera[0].is_alive() and client.call(Trigger, "reset").success is False
    node.context.try_shutdown()
    assert wait(lambda: not any(thread.is_alive() for thread in requests), 5)


def test_closing_waits_for_the_image_that_is_being_taken(idle, monkeypatch):
    client, node = idle
    began, done = threading.Event(), threading.Event()

    def dawdle(frame):
        began.set()
        time.sleep(0.3)
        done.set()

    monkeypatch.setattr(node.session.inputs, "_on_frame", dawdle)
    assert show(client, node) and began.wait(5)
    node.session.inputs.close()
    assert done.is_set()


class Pair:
    """A plain node that nobody spins, whose listener takes two topics, and a client that publishes on them.

    ``act`` is called by the listener when both topics have something.
    """

    def __init__(self, act):
        self.client, self.context, self.taken = Client(), rclpy.Context(), []
        rclpy.init(context=self.context, domain_id=self.client.domain)
        self.node, group = rclpy.create_node("pair", context=self.context), PastExecutor()
        self.first, self.second = (
            self.node.create_subscription(String, topic, lambda message: None, 10, callback_group=group)
            for topic in ("first", "second")
        )
        self._publishers = {
            topic: self.client.node.create_publisher(String, topic, 10) for topic in ("first", "second")
        }
        for topic, publisher in self._publishers.items():
            assert wait(lambda topic=topic: self.node.count_publishers(topic) > 0)
            assert wait(lambda publisher=publisher: publisher.get_subscription_count() > 0)
        held, release = threading.Event(), threading.Event()

        def take_first(message, info):
            self.taken.append(message.data)
            if message.data == "hold":
                held.set()
                release.wait(10)
            else:
                act(self)
                self.taken.append("done")

        sources = {self.first: take_first, self.second: lambda message, info: self.taken.append(message)}
        self.listener = Listener(self.node, "pair", sources)
        time.sleep(0.3)  # until both have found each other
        self.publish("first", "hold")
        assert held.wait(10)
        self.publish("first", "act")
        self.publish("second", "other")
        time.sleep(0.3)  # until both have arrived
        release.set()

    def publish(self, topic, text):
        self._publishers[topic].publish(String(data=text))

    def close(self):
        self.listener.close()
        self.context.try_shutdown()
        self.node.destroy_node()
        self.client.close()


def test_so_many_callbacks_run_at_once_and_no_more():
    """Images come in one after the other; requests wait for the device together."""
    client, context = Client(), rclpy.Context()
    rclpy.init(context=context, domain_id=client.domain)
    node, release, running, done = rclpy.create_node("crowd", context=context), threading.Event(), [], []

    def take(request, header):
        running.append(header)
        release.wait(10)
        done.append(header)
        service.send_response(Trigger.Response(success=True), header)

    service = node.create_service(Trigger, "/d4rt/crowd", take, callback_group=PastExecutor())
    listener = Listener(node, "crowd", {service: take}, threads=3)
    try:
        calls = [client.send(Trigger, "crowd") for _ in range(5)]
        assert wait(lambda: len(running) == 3)
        time.sleep(0.3)
        assert len(running) == 3 and not done
        release.set()
        assert wait(lambda: all(call.done() for call in calls)) and len(done) == 5
        assert len(listener._threads) == 3
        listener.close()
        assert not any(thread.is_alive() for thread in listener._threads)
    finally:
        release.set()
        context.try_shutdown()
        node.destroy_node()
        client.close()


def test_a_callback_may_close_its_listener_and_nothing_more_is_taken():
    pair = Pair(lambda pair: pair.listener.close())
    try:
        assert wait(lambda: not any(thread.is_alive() for thread in pair.listener._threads))
        assert pair.taken == ["hold", "act", "done"]
    finally:
        pair.close()


def test_what_somebody_else_has_taken_is_not_passed_on():
    pair = Pair(lambda pair: pair.second.handle.take_message(String, False))
    try:
        assert wait(lambda: "done" in pair.taken)
        pair.publish("second", "next")
        assert wait(lambda: len(pair.taken) > 3)
        assert pair.taken == ["hold", "act", "done", String(data="next")]
    finally:
        pair.close()


def test_a_listener_that_hears_nothing_ends_with_its_context():
    pair = Pair(lambda pair: None)
    try:
        assert wait(lambda: len(pair.taken) == 4)
        time.sleep(0.2)  # it waits again
        pair.context.try_shutdown()
        assert wait(lambda: not any(thread.is_alive() for thread in pair.listener._threads), 5)
    finally:
        pair.close()
