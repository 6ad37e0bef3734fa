"""The node as a process of its own: started as `ros2 run` starts it, asked from outside, ended by signals."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import rclpy
import torch
from node_rig import TYPES, Client, new_domain, stamp, wait
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter
from room import SIZE
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from d4rt_ros import conversions
from d4rt_ros.model import D4RT, ModelConfig, save_weights
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.srv import Query

TINY = ModelConfig(frames=4, image_size=(16, 16), vit_width=16, vit_heads=2, vit_depth=1, dec_width=16,
                   dec_heads=2, dec_depth=1, uv_bands=2, rgb_patch=3)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny network that was never trained: it answers nonsense, but it answers."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(D4RT(TINY), path)
    return path


@contextmanager
def node(domain, *settings):
    """The node's process; ended if the test did not."""
    parameters = [word for setting in settings for word in ("-p", setting)]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from d4rt_ros.node import main; sys.exit(main())",
            "--ros-args",
            *parameters,
        ],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process, number):
    """Exit code, output and seconds that it took."""
    started = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    return process.returncode, output, time.monotonic() - started


def test_images_from_one_process_are_answered_for_by_another(weights):
    client = Client()
    try:
        with node(client.domain, f"model.checkpoint:={weights}", "model.precision:=float32") as process:
            publisher = client.node.create_publisher(Image, "image", 10)
            assert wait(lambda: publisher.get_subscription_count() > 0, 40)
            depth = client.listen(Image, "depth/image")
            answer, number = None, 0
            pictures = np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), dtype=np.uint8)
            deadline = time.monotonic() + 30
            while (answer is None or not answer.success or not depth) and time.monotonic() < deadline:
                publisher.publish(conversions.rgb_image(TYPES, stamp(number), "camera", pictures[number % 9]))
                answer = client.call(Query, "query", u=[3.0, 5.0], v=[1.0, 2.0])
                number += 1
            assert answer.success and answer.points.width == 2, answer.message
            assert depth and depth[0].header.frame_id == "camera"
            assert client.call(Trigger, "reset").success
            code, output, seconds = end(process, signal.SIGINT)
            assert code == 0 and seconds < 3 and "Traceback" not in output, output
    finally:
        client.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("autostart", [True, False])
def test_a_signal_ends_the_node_at_once_without_a_traceback(weights, number, autostart):
    domain = new_domain()
    with node(domain, f"model.checkpoint:={weights}", f"autostart:={str(autostart).lower()}") as process:
        if autostart:
            for line in process.stdout:
                if "images from" in line:
                    break
        else:
            time.sleep(1.5)  # while it loads its libraries
        code, output, seconds = end(process, number)
        assert code == 0 and "Traceback" not in output, output
        assert seconds < 3


def test_a_missing_checkpoint_is_named_and_the_node_waits_for_a_better_one(tmp_path):
    domain = new_domain()
    with node(domain, f"model.checkpoint:={tmp_path}/gone.ckpt") as process:
        line = next(line for line in process.stdout if "cannot configure" in line)
        assert "gone.ckpt: no weights here" in line
        time.sleep(0.3)
        assert process.poll() is None
        assert end(process, signal.SIGTERM)[0] == 0


def test_wrong_parameters_at_start_end_the_process_with_a_sentence():
    with node(new_domain(), "tf.mode:=odom_to_base") as process:
        output, _ = process.communicate(timeout=40)
        assert process.returncode == 2 and "Traceback" not in output, output
        assert "d4rt cannot start: tf.mode is 'odom_to_base', which needs frames.base; it is empty" in output


@pytest.mark.parametrize(("name", "value"), [("points.min_confidence", 7.0), ("window.stride", "fast")])
def test_a_parameter_out_of_range_or_of_another_type_is_refused_at_start(name, value):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=new_domain())
    try:
        with pytest.raises(ParameterException, match=name):
            D4RTNode(context=context, parameter_overrides=[Parameter(name, value=value)])
    finally:
        context.try_shutdown()
