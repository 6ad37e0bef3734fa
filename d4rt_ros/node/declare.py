"""The parameter table on a node: declared with descriptors, checked whenever somebody sets one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node

from d4rt_ros.node.parameters import BY_NAME, TABLE, Parameter, Value, refusal


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """What `ros2 param describe` shows."""
    shown = ParameterDescriptor(
        description=parameter.description,
        additional_constraints=f"Allowed: {parameter.allowed}." if parameter.allowed else "",
        read_only=parameter.change == "start",
    )
    if parameter.low is not None and parameter.high is not None:
        low = 0 if parameter.zero else parameter.low
        if parameter.kind == "float":
            shown.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(parameter.high))
            ]
        else:
            shown.integer_range = [IntegerRange(from_value=int(low), to_value=int(parameter.high), step=1)]
    return shown


def declare(node: Node, state: Callable[[], str]) -> None:
    """Declare all parameters and refuse wrong values from now on.

    Args:
        node: to declare them on.
        state: label of the node's lifecycle state now.

    Raises:
        ValueError: values given at start that do not go together; names field, value and range.
        rclpy.exceptions.ParameterException: a value given at start has the wrong type or is out of range.
    """
    for parameter in TABLE:
        node.declare_parameter(parameter.name, parameter.default, descriptor(parameter))
    if reason := refusal(values(node)):
        raise ValueError(reason)

    def check(changes: Sequence[Any]) -> SetParametersResult:
        now = values(node)
        wanted = {change.name: change.value for change in changes if change.name in BY_NAME}
        # `ros2 param load` sets all of a file, most of them to what they are.
        changed = [name for name, value in wanted.items() if repr(value) != repr(now[name])]
        reason = next((locked for name in changed if (locked := _locked(name, state()))), "")
        reason = reason or refusal({**now, **wanted})
        return SetParametersResult(successful=not reason, reason=reason)

    node.add_on_set_parameters_callback(check)


def values(node: Node) -> dict[str, Value]:
    """Every parameter's value now."""
    return {name: node.get_parameter(name).value for name in BY_NAME}


def _locked(name: str, state: str) -> str:
    """Why a parameter cannot be changed in this state; empty if it can."""
    change = BY_NAME[name].change
    if change == "unconfigured" and state != "unconfigured":
        return (
            f"{name} needs another network: it can be set while the node is unconfigured; it is {state} now"
        )
    if change == "inactive" and state not in ("unconfigured", "inactive"):
        return f"{name} can be set while the node is inactive or unconfigured; it is {state} now"
    return ""
