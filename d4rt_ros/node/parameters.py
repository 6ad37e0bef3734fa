"""Every parameter of the node, declared once: name, default, range, description, and when it may be changed.

Needs no ROS. declare.py gives this table to rclpy, and config/d4rt.yaml and docs/ROS.md are generated from
it. Numbers and their ranges are those of ``StreamSettings``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from d4rt_ros.model.precision import PRECISIONS
from d4rt_ros.outputs import TF_MODES
from d4rt_ros.stream import RANGES, SCALE_SOURCES, StreamSettings

Value = bool | int | float | str

_SETTINGS: dict[str, Any] = {field.name: field.default for field in fields(StreamSettings)}


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: as ROS shows it.
        default: its type is the parameter's type.
        description: one or two sentences.
        low: least number allowed.
        high: greatest number allowed.
        choices: strings allowed; empty: any.
        zero: meaning of 0 where 0 is allowed below ``low``; empty where it is not.
        change: when it may be changed: ``inactive`` (not while active), ``unconfigured`` (only then, since
            the network depends on it) or only at ``start``.
        setting: field of StreamSettings that it fills; empty if none.
    """

    name: str
    default: Value
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    zero: str = ""
    change: str = "inactive"
    setting: str = ""

    @property
    def kind(self) -> str:
        """``bool``, ``int``, ``float`` or ``str``."""
        return type(self.default).__name__

    @property
    def allowed(self) -> str:
        """The values allowed, in words; empty for any."""
        if self.choices:
            return ", ".join(f"'{choice}'" for choice in self.choices)
        if self.low is None:
            return "true, false" if self.kind == "bool" else ""
        text = (
            f"{self.low:g} to {self.high:g}"
            if self.kind == "float"
            else f"{int(self.low)} to {int(self.high or 0)}"
        )
        return f"{text}, or 0: {self.zero}" if self.zero else text

    def refusal(self, value: object) -> str:
        """Why a value is not allowed, naming field, value and range; empty if it is."""
        shown = (
            f"'{value}'"
            if isinstance(value, str)
            else str(value).lower()
            if isinstance(value, bool)
            else value
        )
        if type(value) is not type(self.default):
            wanted = {
                "bool": "true or false",
                "int": "a whole number",
                "float": "a number (with a point)",
                "str": "text",
            }
            return f"{self.name} is {shown}; it must be {wanted[self.kind]}"
        if self.choices and value not in self.choices:
            return f"{self.name} is {shown}; it must be one of {self.allowed}"
        if isinstance(value, str) or self.low is None or self.high is None or (self.zero and value == 0):
            return ""
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return f"{self.name} is {shown}; it must be {self.allowed}"
        return ""


def _stream(name: str, description: str, zero: str = "", change: str = "inactive") -> Parameter:
    """A parameter that is a field of StreamSettings, ``group.rest_of_name`` for ``group_rest_of_name``."""
    setting = name.replace(".", "_") if name.replace(".", "_") in _SETTINGS else name.split(".", 1)[1]
    low, high = RANGES.get(setting, (None, None))
    choices = SCALE_SOURCES if setting == "scale_source" else ()
    default = 0 if zero else _SETTINGS[setting]
    return Parameter(name, default, description, low, high, choices, zero, change, setting)


TABLE: tuple[Parameter, ...] = (
    Parameter(
        "model.checkpoint",
        "builtin",
        "Weights: 'builtin', or the path of a .safetensors file, of a folder of its parts, or of an "
        "OpenD4RT .ckpt file.",
        change="unconfigured",
    ),
    Parameter(
        "model.device",
        "auto",
        "Device of the network: 'auto' (a GPU where there is one), 'cpu' or 'cuda:N'.",
        change="unconfigured",
    ),
    Parameter(
        "model.precision",
        "auto",
        "Number format of the network's matrix products; 'auto' takes the fastest one that the device is "
        "good at.",
        choices=("auto", *PRECISIONS),
        change="unconfigured",
    ),
    Parameter(
        "model.compile",
        False,
        "Compile the network at configuration: minutes once, then faster on a GPU.",
        change="unconfigured",
    ),
    _stream("window.length", "Frames encoded together; even.", zero="as many as the network was made for"),
    _stream(
        "window.stride",
        "New frames from one window to the next. Windows that overlap are joined into one world.",
        zero="half of window.length",
    ),
    _stream("window.frame_step", "Every n-th frame of the camera is used."),
    _stream("window.max_gap", "Seconds without a frame after which the stream starts over with a new world."),
    _stream("history.windows", "Encoded windows that are kept for services to ask about."),
    _stream("points.stride", "Pixels from one point of the clouds to the next, in both directions."),
    _stream(
        "points.min_confidence",
        "Depths and points of lower confidence are left out (NaN in depth images). Also the default of "
        "services. The built-in model's is about the share of such depths that are within 10 percent.",
    ),
    _stream(
        "dynamic.min_speed",
        "Points that move slower in the world count as still; metres (or units) per second.",
    ),
    _stream("map.voxel_size", "~/map_points keeps one point per cube with this side; metres (or units)."),
    _stream("map.max_points", "Points that ~/map_points keeps at most; the oldest are given up first."),
    _stream("tracks.grid", "Points per image side that ~/tracks follows without being asked; 0 for none."),
    _stream("tracks.max_points", "Points that ~/tracks follows at most, asked for or not."),
    _stream("pose.grid", "Points per image side from which the camera's pose is solved."),
    Parameter(
        "frames.world", "world", "Name of the fixed frame: of ~/odometry, ~/path, ~/map_points and tf.mode."
    ),
    Parameter(
        "frames.base",
        "",
        "Name of the robot's base frame: odometry is then of it, through /tf. Empty: odometry is of the "
        "camera.",
    ),
    Parameter(
        "tf.mode",
        "none",
        "Transform that is broadcast: none; frames.world to the camera; frames.world to frames.base as an "
        "odometry "
        "source; or frames.world to the odometry frame as a localizer does (REP-105).",
        choices=TF_MODES,
    ),
    Parameter(
        "frames.odom", "odom", "Name of the odometry frame on /tf, for map_to_odom and scale.source odometry."
    ),
    _stream(
        "scale.source",
        "What makes lengths metric: nothing; a fixed factor; the topic depth; or the camera's motion in "
        "frames.odom.",
    ),
    _stream("scale.value", "Metres per unit of the network, for scale.source fixed."),
    _stream("query.max_points", "Points that one request may ask for at most."),
    _stream("query.queue", "Requests that may wait at most; more are refused at once.", change="start"),
    Parameter(
        "image_transport",
        "raw",
        "raw: topic image, sensor_msgs/Image. compressed: topic image/compressed, JPEG or PNG.",
        choices=("raw", "compressed"),
    ),
    Parameter(
        "image_reliability",
        "best_effort",
        "Quality of service of the images: best_effort hears every publisher; reliable loses no large image, "
        "but hears reliable publishers only.",
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "image_rectified",
        False,
        "The images had their lens distortion taken out before (image_rect): camera_info is then used "
        "without it.",
    ),
    Parameter(
        "autostart", True, "Configure and activate at start, without a lifecycle manager.", change="start"
    ),
)
BY_NAME: dict[str, Parameter] = {parameter.name: parameter for parameter in TABLE}


def refusal(values: Mapping[str, object]) -> str:
    """Why these values, one for every parameter, cannot be taken; empty if they can."""
    for name, value in values.items():
        if name in BY_NAME and (reason := BY_NAME[name].refusal(value)):
            return reason
    length, stride = values["window.length"], values["window.stride"]
    if isinstance(length, int) and length % 2:
        return f"window.length is {length}; it must be even, from 2 to 256"
    if isinstance(length, int) and isinstance(stride, int) and length and stride > length:
        return f"window.stride is {stride}; it must be at most window.length, which is {length}"
    if values["tf.mode"] in ("odom_to_base", "map_to_odom") and not values["frames.base"]:
        return f"tf.mode is '{values['tf.mode']}', which needs frames.base; it is empty"
    return _frames_refusal(values)


def _frames_refusal(values: Mapping[str, object]) -> str:
    world, base, odom = names = [str(values[f"frames.{name}"]) for name in ("world", "base", "odom")]
    for name, value in zip(("world", "base", "odom"), names, strict=True):
        if value.startswith("/"):
            return f"frames.{name} is '{value}'; tf2 takes no name that begins with a slash"
        if not value and name != "base":
            return f"frames.{name} is ''; it must name a frame"
    if base in (world, odom):
        return f"frames.base is '{base}', which frames.{'world' if base == world else 'odom'} is, too"
    mode = values["tf.mode"]
    if mode == "map_to_odom" and world == odom:
        return f"tf.mode is 'map_to_odom', but frames.world and frames.odom both are '{odom}'"
    if values["scale.source"] == "odometry" and mode != "none" and world == odom:
        return (
            f"scale.source is 'odometry', but with tf.mode '{mode}' and frames.world '{odom}', which "
            "frames.odom is, too, it would be read from this node's own poses"
        )
    return ""


def stream_settings(values: Mapping[str, Value], model_frames: int) -> StreamSettings:
    """Settings of the pipeline.

    Args:
        values: of all parameters.
        model_frames: the longest window of the network.

    Raises:
        ValueError: values that cannot be taken, or a window longer than the network can take; names field,
            value and range.
    """
    if reason := refusal(values):
        raise ValueError(reason)
    chosen = {parameter.setting: values[parameter.name] for parameter in TABLE if parameter.setting}
    length = int(chosen["window_length"]) or model_frames
    stride = int(chosen["window_stride"]) or max(length // 2, 1)
    if length > model_frames:
        raise ValueError(
            f"window.length is {length}, but the network of model.checkpoint "
            f"'{values['model.checkpoint']}' takes at "
            f"most {model_frames} frames; set it to 0 or to an even number from 2 to {model_frames}"
        )
    return StreamSettings(**{**chosen, "window_length": length, "window_stride": stride})  # type: ignore[arg-type]


def defaults() -> dict[str, Value]:
    """The default of every parameter."""
    return {parameter.name: parameter.default for parameter in TABLE}


def yaml_text() -> str:
    """config/d4rt.yaml: every parameter with its default and a comment."""
    lines = [
        "# Every parameter of the node with its default. Generated by `python tools/interface_docs.py`.",
        "/**:",
        "  ros__parameters:",
    ]
    for parameter in TABLE:
        note = f" Allowed: {parameter.allowed}." if parameter.allowed else ""
        when = {
            "inactive": " Not while active.",
            "unconfigured": " Only while unconfigured.",
            "start": " Only at start.",
        }[parameter.change]
        words, line = f"{parameter.description}{note}{when}".split(), "    #"
        for word in words:
            if len(line) + 1 + len(word) > 110:
                lines.append(line)
                line = "    #"
            line += " " + word
        lines.append(line)
        value = parameter.default
        shown = (
            f'"{value}"'
            if isinstance(value, str)
            else str(value).lower()
            if isinstance(value, bool)
            else repr(value)
        )
        lines.append(f"    {parameter.name}: {shown}")
    return "\n".join(lines) + "\n"
