"""Lifecycle: what loads, what frees, what is answered in which state."""

import gc
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_rig import FRAMES, Rig, RoomModel, wait
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import TransitionCallbackReturn

from d4rt_ros.model import D4RT, ModelConfig, save_weights
from d4rt_ros.node.loading import load_network
from d4rt_ros.node.node import D4RTNode
from d4rt_ros.node.parameters import defaults
from d4rt_ros.node.run import THREADS, spin_on
from d4rt_ros.srv import Query

TINY = ModelConfig(frames=FRAMES, image_size=(16, 16), vit_width=16, vit_heads=2, vit_depth=1, dec_width=16,
                   dec_heads=2, dec_depth=1, uv_bands=2, rgb_patch=3)  # fmt: skip

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def rig():
    rig = Rig(start=False)
    yield rig
    rig.close()


def test_every_state_answers_and_transitions_work_over_the_wire(rig):
    def change(transition):
        return rig.call(ChangeState, "change_state", transition=Transition(id=transition)).success

    def state():
        return rig.call(GetState, "get_state").current_state.label

    assert state() == "unconfigured"
    answer = rig.call(Query, "query", u=[1.0], v=[1.0])
    assert not answer.success and answer.message == "the node is unconfigured; it answers while it is active"
    assert change(Transition.TRANSITION_CONFIGURE) and state() == "inactive" and rig.d4rt.model is rig.model
    assert "inactive" in rig.call(Query, "query", u=[1.0], v=[1.0]).message
    assert change(Transition.TRANSITION_ACTIVATE) and state() == "active"
    rig.play(FRAMES)
    assert rig.call(Query, "query", u=[1.0], v=[1.0]).success
    assert change(Transition.TRANSITION_DEACTIVATE) and rig.session is None
    assert not rig.call(Query, "query", u=[1.0], v=[1.0]).success
    assert change(Transition.TRANSITION_CLEANUP) and state() == "unconfigured" and rig.d4rt.model is None


def test_the_security_policy_allows_every_service_of_the_node(rig):
    profile = ElementTree.parse(ROOT / "config" / "d4rt_policy.xml").find(".//profile")
    allowed = {one.text for one in profile.find("services")}
    found = rig.d4rt.get_service_names_and_types_by_node("d4rt", "/")
    names = {name.replace("/d4rt/", "~") for name, _ in found if "/_action/" not in name}
    assert names >= {"~query", "~set_parameters", "~change_state"}
    assert names <= allowed


def test_an_executor_has_all_its_threads_from_the_start(rig):
    assert wait(lambda: len(rig._node_executor._executor._threads) == THREADS)


def test_cycles_leave_nothing_behind(rig):
    rig.d4rt.trigger_configure()

    def cycle():
        rig.d4rt.trigger_activate()
        rig.d4rt.trigger_deactivate()

    cycle()
    gc.collect()
    before = len(gc.get_objects()), len(list(rig.d4rt.subscriptions)), len(list(rig.d4rt.services))
    for _ in range(10):
        cycle()
    gc.collect()
    after = len(gc.get_objects()), len(list(rig.d4rt.subscriptions)), len(list(rig.d4rt.services))
    assert after[1:] == before[1:] and after[0] - before[0] < 300
    rig.d4rt.trigger_cleanup()


def test_a_configuration_that_fails_says_why_and_can_be_tried_again(tmp_path):
    rig = Rig(start=False)
    try:
        good, tries = rig.d4rt._load, []

        def load(values):
            tries.append(values["model.checkpoint"])
            if len(tries) == 1:
                return load_network({**defaults(), "model.checkpoint": str(tmp_path / "nothing.safetensors")})
            return good(values)

        rig.d4rt._load = load
        heard = rig.listen(DiagnosticArray, "/diagnostics")
        assert rig.d4rt.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert rig.d4rt.state_label == "unconfigured" and rig.d4rt.model is None
        assert "nothing.safetensors: no weights here" in rig.d4rt.load_problem
        assert wait(
            lambda: any(
                "nothing.safetensors" in status.message for array in heard for status in array.status
            ),
            5,
        )
        assert (
            rig.d4rt.trigger_configure() == TransitionCallbackReturn.SUCCESS and rig.d4rt.load_problem == ""
        )
    finally:
        rig.close()


def test_checkpoints_that_are_missing_truncated_or_of_another_network_are_named(tmp_path):
    whole = tmp_path / "whole.safetensors"
    torch.manual_seed(0)
    save_weights(D4RT(TINY), whole)
    values = {
        **defaults(),
        "model.checkpoint": str(whole),
        "model.device": "cpu",
        "model.precision": "float32",
    }
    assert load_network(values).config == TINY
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut.safetensors: damaged or not a weights file"):
        load_network({**values, "model.checkpoint": str(cut)})
    with pytest.raises(ValueError, match="device 'tpu' is none of auto, cpu, cuda:N"):
        load_network({**values, "model.device": "tpu"})


def test_a_window_longer_than_the_network_takes_fails_activation_with_a_sentence():
    rig = Rig(start=False, window__length=2 * FRAMES)
    try:
        assert rig.d4rt.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert rig.d4rt.trigger_activate() == TransitionCallbackReturn.FAILURE
        assert rig.d4rt.state_label == "inactive" and rig.session is None
        heard = rig.listen(DiagnosticArray, "/diagnostics")
        assert wait(lambda: heard, 5)
        stream = next(status for array in heard for status in array.status if "stream" in status.name)
        assert stream.level == DiagnosticStatus.ERROR
        assert stream.message.startswith("cannot activate: window.length is 16")
        assert rig.d4rt.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert rig.d4rt.start_problem == ""
    finally:
        rig.close()


def test_diagnostics_say_how_the_stream_is():
    rig = Rig(RoomModel())
    try:
        heard = rig.listen(DiagnosticArray, "/diagnostics")
        rig.play(FRAMES)
        assert wait(lambda: any("window latency p95 (s)" in keys(array) for array in heard), 5)
        shown = keys(next(array for array in heard if "window latency p95 (s)" in keys(array)))
        assert shown["images received"] == str(FRAMES) and shown["windows encoded"] == "1"
        assert shown["scale source"] == "none" and shown["tf mode"] == "none" and shown["device"] == "cpu"
        assert wait(lambda: any("no message on /image" in status.message for status in heard[-1].status), 6)
    finally:
        rig.close()


def test_nodes_of_several_cameras_are_told_apart_while_no_clock_runs():
    rig = Rig(start=False, use_sim_time=True)
    left = D4RTNode(lambda values: rig.model, context=rig.node_context, namespace="left")
    try:
        rig._node_executor.add_node(left)
        heard = rig.listen(DiagnosticArray, "/diagnostics")
        names = {"d4rt: stream", "d4rt: model", "d4rt: left stream", "d4rt: left model"}
        assert wait(lambda: names <= {one.name for array in heard for one in array.status}, 8)
        found = {one.name: one.hardware_id for array in heard for one in array.status}
        assert found["d4rt: stream"] == "/d4rt"
        assert found["d4rt: left stream"] == "/left/d4rt"
        count = len(heard)
        assert wait(lambda: len(heard) >= count + 4, 8), "each goes on"
    finally:
        rig._node_executor.remove_node(left)
        left.close()
        left.destroy_node()
        rig.close()


def keys(array):
    return {pair.key: pair.value for status in array.status for pair in status.values}


def test_the_executor_goes_on_when_something_is_destroyed_while_it_waits():
    class Executor:
        context, spins = rclpy.get_default_context(), 0

        def spin(self):
            self.spins += 1
            if self.spins < 3:
                raise _rclpy.InvalidHandle("destruction was requested")

    rclpy.init()
    try:
        executor = Executor()
        spin_on(executor)
        assert executor.spins == 3
    finally:
        rclpy.utilities.try_shutdown()
