"""The lifecycle node `d4rt`: configure loads the network, activate subscribes, cleanup frees memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from d4rt_ros.model import D4RT
from d4rt_ros.node.action import TrackAllAction
from d4rt_ros.node.declare import declare, values
from d4rt_ros.node.diagnostics import Diagnostics
from d4rt_ros.node.loading import free_device_memory, load_network, settle_memory
from d4rt_ros.node.parameters import Value, refusal
from d4rt_ros.node.publishers import Publishers
from d4rt_ros.node.services import Services
from d4rt_ros.node.session import Session

LOOK_PERIOD = 0.5  # seconds between two looks of the supervision


class D4RTNode(LifecycleNode):
    """Camera frames in, 4D answers out.

    Args:
        load: makes the network from the parameters; raises ValueError with a sentence. Tests put theirs here.
        **options: of rclpy's Node (context, namespace, parameter_overrides, ...).

    Attributes:
        model: the network while configured, else None.
        session: what runs while active, else None.
        load_problem: why the last configuration failed; empty if it did not.
        start_problem: why the last activation failed; empty if it did not.

    Raises:
        ValueError: parameters given at start that cannot be taken.
        rclpy.exceptions.ParameterException: one of the wrong type or out of range.
    """

    def __init__(self, load: Callable[[Mapping[str, Value]], D4RT] = load_network, **options: Any) -> None:
        """Declare everything that other nodes can see, and load nothing."""
        super().__init__("d4rt", **options)
        self.model: D4RT | None = None
        self.session: Session | None = None
        self.load_problem = self.start_problem = ""
        self._load, self._next_id = load, 1  # clients keep ids of followed points over a deactivation
        self._requests: Services | None = None  # still none where what follows raises
        declare(self, lambda: self.state_label)
        self._outputs = Publishers(self)
        self._requests = Services(self)
        self._action = TrackAllAction(self)
        self._diagnostics = Diagnostics(self)
        # Steady, so that it also runs while a simulated clock stands still.
        self._look_timer = self.create_timer(
            LOOK_PERIOD, self._look, MutuallyExclusiveCallbackGroup(), Clock(clock_type=ClockType.STEADY_TIME)
        )
        # No forward limit: a jump ahead shows as a gap between stamps, which the frame window sees.
        backwards = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jumps = self.get_clock().create_jump_callback(backwards, post_callback=self._on_jump)

    @property
    def state_label(self) -> str:
        """Label of the lifecycle state: unconfigured, inactive, active, finalized, or a transition."""
        return str(self._state_machine.current_state[1])

    @property
    def values(self) -> dict[str, Value]:
        """Every parameter's value now."""
        return values(self)

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Load the network."""
        try:
            chosen = self.values
            if reason := refusal(chosen):
                raise ValueError(reason)
            self.model = self._load(chosen)
        except Exception as error:  # rclpy would swallow it without a word
            expected = isinstance(error, (ValueError, OSError))
            self.load_problem = str(error) if expected else f"{type(error).__name__}: {error}"
            self.get_logger().error(f"cannot configure: {self.load_problem}")
            self._drop_model()
            return TransitionCallbackReturn.FAILURE
        self.load_problem = ""
        settle_memory()  # not a session's: what it holds must be found when it is given up
        self.get_logger().info(f"network '{chosen['model.checkpoint']}' is on {self.model.device}")
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Subscribe and start to answer."""
        assert self.model is not None  # the state machine configures first
        super().on_activate(state)
        try:
            self.session = Session(self, self.model, self.values, self._outputs, self._next_id)
        except Exception as error:
            self.start_problem = f"cannot activate: {error}"
            self.get_logger().error(self.start_problem)
            super().on_deactivate(state)
            return TransitionCallbackReturn.FAILURE
        self.start_problem, session = "", self.session
        self.get_logger().info(
            f"windows of {session.settings.window_length} frames every {session.settings.window_stride}; "
            f"images from {session.inputs.topics['image']}"
        )
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Unsubscribe; forget all windows."""
        self._end_session()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Give the network's memory back."""
        self._drop_model()
        self.start_problem = ""
        return super().on_cleanup(state)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """End for good."""
        self._end_session()
        self._drop_model()
        return super().on_shutdown(state)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """Back to unconfigured, whatever happened."""
        self._end_session()
        self._drop_model()
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """End what runs, before the process ends. May be called in any state and twice."""
        self._end_session()
        self._drop_model()

    def destroy_node(self) -> None:
        """Give everything back that others can see."""
        if self._requests is not None:
            self._requests.close()
        super().destroy_node()

    def _end_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.stop()
            self._next_id = session.pipeline.next_id

    def _drop_model(self) -> None:
        self.model = None
        free_device_memory()

    def _look(self) -> None:
        self._diagnostics.look()
        session = self.session
        if session is not None:
            session.supervision.look()

    def _on_jump(self, jump: Any) -> None:
        session = self.session
        if session is not None:
            session.time_jumped_back()
