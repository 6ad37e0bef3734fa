"""A crowd of clients, goals cancelled at every stage, and settings that nobody should try."""

import time

import pytest
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from field import FRAMES, PATIENCE, FieldNode
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_rig import Client, wait
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.action import ActionClient

from d4rt_ros.action import TrackAll
from d4rt_ros.node.parameters import BY_NAME, TABLE
from d4rt_ros.srv import Query

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(600)]
CROWD = 50
CAMERA_SIZE = (96, 128)
NAMES = [parameter.name for parameter in TABLE]


def test_fifty_clients_at_once_are_all_answered(node):
    clients = [Client(f"client_{index}", node.domain) for index in range(CROWD)]
    try:
        for client in clients:
            ask = lambda client=client: client.send(Query, "query", u=[1.0], v=[1.0]).done  # noqa: E731
            assert wait(lambda ask=ask: wait(ask(), 2), PATIENCE)  # until each has found the other
        for seconds in (0, 0.05):  # at once, and while the device is busy
            node.suffer(f"slow {seconds}")
            futures = [client.send(Query, "query", u=[1.0] * 50, v=[2.0] * 50) for client in clients]
            assert wait(lambda futures=futures: all(one.done() for one in futures), PATIENCE), sum(
                one.done() for one in futures
            )
            answers = [one.result() for one in futures]
            assert all(one.success or "ask again later" in one.message for one in answers)
            assert sum(one.success for one in answers) >= 45
    finally:
        node.suffer()
        for client in clients:
            client.close()


def test_more_calls_than_the_queue_holds_are_refused_at_once_and_the_others_answered(node):
    node.suffer("slow 0.5")
    client = node.client(Query, "/d4rt/query")
    futures = [client.call_async(Query.Request(u=[1.0], v=[1.0])) for _ in range(300)]
    assert wait(lambda: all(one.done() for one in futures), PATIENCE)
    refused = [one.result().message for one in futures if not one.result().success]
    assert 0 < len(refused) < 300 and all("ask again later" in message for message in refused)
    node.suffer()
    assert node.call(Query, "query", u=[1.0], v=[1.0]).success


class Goal:
    """A goal for every pixel, and what becomes of it."""

    def __init__(self, node, client):
        self.node, self.feedback = node, []
        self.sent = client.send_goal_async(
            TrackAll.Goal(stride=1), feedback_callback=lambda message: self.feedback.append(message.feedback)
        )

    def cancel(self):
        """Return code of the cancellation."""
        assert wait(self.sent.done, PATIENCE) and self.sent.result().accepted
        answer = self.sent.result().cancel_goal_async()
        assert wait(answer.done, PATIENCE)
        return answer.result().return_code

    def ended(self):
        """Status and result."""
        future = self.sent.result().get_result_async()
        assert wait(future.done, PATIENCE), "the goal never ended"
        return future.result().status, future.result().result


@pytest.fixture
def client(node):
    """An action client, with a device that takes its time."""
    client = ActionClient(node.node, TrackAll, "/d4rt/track_all")
    assert client.wait_for_server(PATIENCE)
    time.sleep(0.5)  # until the server has found the client, too
    node.suffer("slow 0.02")
    yield client
    node.suffer()
    assert node.play(FRAMES).success  # nothing of a goal holds the windows up
    client.destroy()


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.3, 0.6, 0.9])
def test_a_goal_is_cancelled_at_any_share_of_its_work(node, client, share):
    goal = Goal(node, client)
    assert wait(lambda: goal.sent.done(), PATIENCE)
    assert wait(lambda: share < 0 or (goal.feedback and goal.feedback[-1].covered > share), PATIENCE)
    assert goal.cancel() == CancelGoal.Response.ERROR_NONE
    status, result = goal.ended()
    assert status == GoalStatus.STATUS_CANCELED and not result.success
    assert share < 0 or len(result.tracks.ids) > 0
    assert not goal.feedback or goal.feedback[-1].covered < 1.0  # it ended then, not when it was done


def test_goals_that_wait_are_cancelled_before_their_turn(node, client):
    goals = [Goal(node, client) for _ in range(4)]
    assert wait(lambda: any(goal.feedback for goal in goals), PATIENCE)  # they may begin in any order
    for goal in goals[::-1]:
        assert goal.cancel() == CancelGoal.Response.ERROR_NONE
    assert [goal.ended()[0] for goal in goals] == [GoalStatus.STATUS_CANCELED] * 4


def test_all_goals_are_cancelled_with_one_call(node, client):
    node.suffer("slow 0.1")
    goals = [Goal(node, client) for _ in range(3)]
    began = lambda: any(goal.feedback for goal in goals) and all(goal.sent.done() for goal in goals)  # noqa: E731
    assert wait(began, PATIENCE)
    answer = node.call(CancelGoal, "track_all/_action/cancel_goal", PATIENCE)  # no id: all of them
    assert len(answer.goals_canceling) == 3
    assert [goal.ended()[0] for goal in goals] == [GoalStatus.STATUS_CANCELED] * 3


def test_a_goal_that_has_ended_cannot_be_cancelled(node, client):
    node.suffer()
    goal = Goal(node, client)
    assert wait(goal.sent.done, PATIENCE) and goal.ended()[0] == GoalStatus.STATUS_SUCCEEDED
    assert goal.cancel() == CancelGoal.Response.ERROR_GOAL_TERMINATED


def test_a_client_that_vanishes_in_the_middle_leaves_its_goal_to_end(node, client):
    other = Client("vanishing", node.domain)
    vanishing = ActionClient(other.node, TrackAll, "/d4rt/track_all")
    assert vanishing.wait_for_server(PATIENCE)
    time.sleep(0.5)
    goal = Goal(other, vanishing)
    assert wait(lambda: goal.feedback, PATIENCE)
    other.close()
    mine = Goal(node, client)
    assert wait(mine.sent.done, PATIENCE) and mine.cancel() == CancelGoal.Response.ERROR_NONE
    assert mine.ended()[0] == GoalStatus.STATUS_CANCELED


KINDS = {
    "bool": ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True),
    "integer": ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=10**15),
    "negative": ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=-(2**63)),
    "double": ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=1e300),
    "below": ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=-1e300),
    "nan": ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=float("nan")),
    "infinite": ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=float("inf")),
    "text": ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="no such thing"),
    "empty": ParameterValue(type=ParameterType.PARAMETER_STRING),
    "bytes": ParameterValue(type=ParameterType.PARAMETER_BYTE_ARRAY, byte_array_value=[b"\x01"]),
    "bools": ParameterValue(type=ParameterType.PARAMETER_BOOL_ARRAY, bool_array_value=[True]),
    "integers": ParameterValue(type=ParameterType.PARAMETER_INTEGER_ARRAY, integer_array_value=[1, 2]),
    "doubles": ParameterValue(type=ParameterType.PARAMETER_DOUBLE_ARRAY, double_array_value=[0.5]),
    "texts": ParameterValue(type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=["none"]),
    "nothing": ParameterValue(type=ParameterType.PARAMETER_NOT_SET),
}
FREE_TEXT = ("model.checkpoint", "model.device", "frames.world", "frames.base", "frames.odom")


def allowed(parameter, value):
    """Whether this value is a good one for the parameter."""
    good = {
        ParameterType.PARAMETER_BOOL: "bool",
        ParameterType.PARAMETER_STRING: "str",
    }.get(value.type, "")
    named = parameter.name in ("frames.world", "frames.odom")
    if good != parameter.kind or named and not value.string_value:
        return False
    return parameter.kind == "bool" or parameter.name in FREE_TEXT


def held(node):
    """The value of every parameter, as text (NaN is not equal to itself)."""
    return [str(value) for value in node.call(GetParameters, "get_parameters", names=NAMES).values]


def change_state(node, transition):
    assert node.call(ChangeState, "change_state", PATIENCE, transition=Transition(id=transition)).success


@pytest.fixture
def state(node, request):
    """The node in a lifecycle state, and back."""
    ways = {
        "active": [],
        "inactive": [Transition.TRANSITION_DEACTIVATE],
        "unconfigured": [Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP],
    }
    way = ways[request.param]
    for transition in way:
        change_state(node, transition)
    yield request.param
    back = {Transition.TRANSITION_DEACTIVATE: Transition.TRANSITION_ACTIVATE,
            Transition.TRANSITION_CLEANUP: Transition.TRANSITION_CONFIGURE}  # fmt: skip
    for transition in way[::-1]:
        change_state(node, back[transition])
    assert node.play(FRAMES).success


@pytest.mark.parametrize("state", ["active", "inactive", "unconfigured"], indirect=True)
def test_no_parameter_takes_a_wrong_value_and_says_why(node, state, record_property):
    before, tried = held(node), 0
    for parameter in TABLE:
        for kind, value in KINDS.items():
            if allowed(parameter, value):
                continue
            change = [ParameterMessage(name=parameter.name, value=value)]
            result = node.call(SetParameters, "set_parameters", parameters=change).results[0]
            assert not result.successful and result.reason, (parameter.name, kind)
            tried += 1
    assert held(node) == before
    record_property("wrong parameter values", tried)


@pytest.mark.parametrize("state", ["inactive"], indirect=True)
def test_one_wrong_value_among_good_ones_changes_nothing(node, state):
    before = held(node)
    good = ParameterMessage(name="points.stride", value=ParameterValue(type=2, integer_value=2))
    wrong = ParameterMessage(name="tf.mode", value=KINDS["text"])
    answer = node.call(SetParametersAtomically, "set_parameters_atomically", parameters=[good, wrong])
    assert not answer.result.successful and "tf.mode is 'no such thing'" in answer.result.reason
    assert held(node) == before
    unknown = ParameterMessage(name="no.such_parameter", value=KINDS["integer"])
    assert not node.call(SetParameters, "set_parameters", parameters=[unknown]).results[0].successful


@pytest.mark.parametrize(
    "setting",
    ["window.length:=7", "window.stride:=fast", "points.min_confidence:=.nan", "frames.world:=[1, 2]"],
)
def test_a_wrong_value_at_start_ends_the_process_with_its_name(tmp_path, setting):
    with pytest.raises(AssertionError, match="d4rt cannot start: .*" + setting.partition(":=")[0]):
        FieldNode(tmp_path, setting)
    assert setting.partition(":=")[0] in BY_NAME
    assert "Traceback" not in (tmp_path / "log").read_text()
