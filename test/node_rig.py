"""A node that looks into the room of room.py, and a client of it, over real DDS in one process."""

import itertools
import os
import threading
import time
from types import SimpleNamespace

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np
import rclpy
import torch
from on_the_wire import points
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from room import SIZE, STEP_NS, Room

from d4rt_ros import conversions
from d4rt_ros.node.messages import RclpyMessages
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.node.run import autostart, make_executor, spin_on

# Processes of one run have a share of the domains each (1 to 100 are free on every system); another run's
# begins somewhere else.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_SHARE = 100 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_DOMAINS = itertools.count(os.getpid() * 7)
TYPES = RclpyMessages()
START = 10**9  # stamp of the first image
FRAMES = 8


def new_domain():
    """A ROS domain that no other test of this run uses at the time."""
    return 1 + _WORKER * _SHARE + next(_DOMAINS) % _SHARE


class RoomModel:
    """Encodes any window to the room at its stamps; ``gate`` holds the device up while it is cleared."""

    def __init__(self, **room):
        self.config, self.device, self.precision = (
            SimpleNamespace(frames=FRAMES),
            torch.device("cpu"),
            torch.float32,
        )
        self.room, self.videos, self.gate = room, [], threading.Event()
        self.gate.set()

    def parameters(self):
        return iter(())

    def encode(self, video, stamps):
        self.gate.wait(20)
        self.videos.append(video)
        return Room(tuple(stamps), **self.room)


def wait(condition, seconds=10.0):
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def _spin(executor):
    try:
        spin_on(executor)
    except Exception:
        if executor.context.ok():  # at the end rclpy may find its context gone in the middle of a wait
            raise


class Client:
    """A node in a context of its own, as another process would have it."""

    def __init__(self, name="client", domain=None):
        self.domain = domain or new_domain()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node(name, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=_spin, args=(self._executor,), daemon=True)
        self._thread.start()
        self._clients = {}

    def client(self, kind, name):
        if name not in self._clients:
            # Fast DDS hands every answer to all clients of a service: the default of 10 is little in a crowd.
            deep = QoSProfile(depth=1000)
            self._clients[name] = self.node.create_client(kind, name, qos_profile=deep)
            assert self._clients[name].wait_for_service(40)
            time.sleep(0.2)  # until the service has found the client, too: it cannot answer before
        return self._clients[name]

    def call(self, kind, name, seconds=20.0, **fields):
        """Response of /d4rt/name."""
        future = self.send(kind, name, **fields)
        assert wait(future.done, seconds), f"{name} was not answered"
        return future.result()

    def send(self, kind, name, **fields):
        name = name if name.startswith("/") else f"/d4rt/{name}"
        return self.client(kind, name).call_async(kind.Request(**fields))

    def listen(self, kind, topic, latched=False):
        """List that fills with the messages of /d4rt/topic."""
        heard = []
        qos = QoSProfile(
            depth=50,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        name = topic if topic.startswith("/") else f"/d4rt/{topic}"
        self.node.create_subscription(kind, name, heard.append, qos)
        return heard

    def close(self):
        self.context.try_shutdown()
        self._thread.join(5)
        self.node.destroy_node()


class Rig(Client):
    """The node, made active, with a camera and a client.

    Args:
        model: what the node loads; None for the room.
        start: configure and activate.
        **parameters: of the node, with __ for the point.
    """

    def __init__(self, model=None, start=True, **parameters):
        super().__init__()
        self.model = model or RoomModel()
        self.node_context = rclpy.Context()
        rclpy.init(context=self.node_context, domain_id=self.domain)
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        self.d4rt = D4RTNode(
            lambda values: self.model, context=self.node_context, parameter_overrides=overrides
        )
        self._node_executor = make_executor(self.d4rt)
        self._node_thread = threading.Thread(target=_spin, args=(self._node_executor,), daemon=True)
        self._node_thread.start()
        self.next, self._cameras = 0, {}
        if start:
            assert autostart(self.d4rt)

    @property
    def session(self):
        return self.d4rt.session

    def publisher(self, kind, topic, reliability=ReliabilityPolicy.RELIABLE):
        """Publisher that the node hears."""
        if topic not in self._cameras:
            self._cameras[topic] = self.node.create_publisher(
                kind, topic, QoSProfile(depth=50, reliability=reliability)
            )
            assert wait(lambda: self._cameras[topic].get_subscription_count() > 0), (
                f"nobody listens to {topic}"
            )
        return self._cameras[topic]

    def show(self, message, topic="image"):
        """Publish an image and wait until the node has it."""
        before = self.session.inputs.counters.images
        self.tell(message, topic, lambda: self.session.inputs.counters.images > before)

    def tell(self, message, topic, condition):
        """Publish a message until the node shows that it has it.

        Once is not always enough: a publisher may see a new subscription before that one hears it.
        """
        publisher = self.publisher(type(message), topic)
        for _ in range(20):
            publisher.publish(message)
            if wait(condition, 0.5):
                return
        raise AssertionError(f"the message on {topic} did not arrive")

    def image(self, number=None, frame_id="camera", size=SIZE):
        """The next image of the room (black: the room model does not look)."""
        number = self.next if number is None else number
        self.next = number + 1
        return conversions.rgb_image(TYPES, stamp(number), frame_id, np.zeros((*size, 3), np.uint8))

    def play(self, count, **fields):
        """Publish the next images; returns when their windows are through."""
        for _ in range(count):
            self.show(self.image(**fields))
        assert self.settle()

    def settle(self):
        """Whether all windows that were handed over are done with, and published."""
        counters = self.session.worker.counters
        frames, inputs = self.session.window.counters, self.session.inputs.counters
        # An image is counted before it is read. Some wait for others, so this may stay untrue.
        wait(
            lambda: (
                frames.received + inputs.refused >= inputs.images and frames.windows == counters.windows_in
            ),
            1.0,
        )
        done = wait(
            lambda: (
                counters.windows_in
                == counters.windows_done + counters.windows_dropped + counters.windows_failed
            )
        )
        self.session.worker.submit(lambda: None).result(10)  # behind the publishing, on the same thread
        return done

    def close(self):
        self.model.gate.set()
        self.d4rt.close()
        self.node_context.try_shutdown()
        self._node_thread.join(5)
        self.d4rt.destroy_node()
        super().close()


def stamp(number):
    """Stamp of the room's image with this number."""
    return START + number * STEP_NS


def time_of(number):
    """The same as a message."""
    return conversions.time_message(TYPES, stamp(number))


def xyz_of(cloud):
    """[N, 3] of a PointCloud2."""
    found = points(cloud)
    return np.stack([found[name] for name in "xyz"], -1)
