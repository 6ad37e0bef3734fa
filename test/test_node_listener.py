"""Camera and requests are taken by threads of their own, while the executor does nothing."""

import pytest
import rclpy
from node_rig import TYPES, Client, RoomModel, stamp, wait
from numpy import uint8, zeros
from room import SIZE
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from d4rt_ros import conversions
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.node.run import autostart


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


def test_what_a_callback_raises_is_logged_and_the_next_one_is_taken(idle, monkeypatch):
    client, node = idle
    failed = []

    def fail(frame):
        failed.append(frame)
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(node.session.inputs, "_on_frame", fail)
        assert show(client, node) and wait(lambda: failed)
    assert show(client, node)
    assert wait(lambda: node.session.window.counters.received > 0)


def test_threads_end_with_the_node(idle):
    client, node = idle
    threads = node._requests._listener._thread, node.session.inputs._listener._thread
    assert all(thread.is_alive() for thread in threads)
    node.close()
    assert not threads[1].is_alive() and client.call(Trigger, "reset").success is False
    node.context.try_shutdown()
    threads[0].join(5)
    assert not threads[0].is_alive()
