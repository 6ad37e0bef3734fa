#!/usr/bin/env python3
"""Writes docs/ROS.md, config/d4rt.yaml and config/d4rt_policy.xml from the code, and takes no arguments."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from d4rt_ros.node import interface, parameters  # noqa: E402
from d4rt_ros.outputs import LATCHED, TOPICS  # noqa: E402

WHEN = {"inactive": "while not active", "unconfigured": "while unconfigured", "start": "at start only"}


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines)


def fields(name: str) -> list[str]:
    """Fields of an interface file without comments, one text per section."""
    package, kind, message = name.split("/")
    text = (ROOT / kind / f"{message}.{kind}").read_text()
    lines = [re.sub(r"\s*#.*", "", line).strip() for line in text.splitlines()]
    sections = "\n".join(line for line in lines if line).split("---")
    return ["; ".join(section.split("\n")).strip("; ") for section in sections]


def calls(entries: dict[str, tuple[str, str]]) -> str:
    """Services or actions with the fields of ours."""
    parts = []
    for name, (kind, text) in entries.items():
        lines = [f"### `~/{name}` ({kind})", "", text, ""]
        if kind.startswith("d4rt_ros/"):
            kinds = ("Request", "Response") if "/srv/" in kind else ("Goal", "Result", "Feedback")
            lines += [f"- {what}: `{section}`" for what, section in zip(kinds, fields(kind))]
            package, folder, message = kind.split("/")
            lines += [
                f"- Units, frames and what a zero means: [{message}](../{folder}/{message}.{folder})",
                "",
            ]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def markdown() -> str:
    """docs/ROS.md."""
    inputs = [[f"`{name}`", kind, text] for name, (kind, text) in interface.INPUTS.items()]
    outputs = [
        [
            f"`{name}`" if name.startswith("/") else f"`~/{name}`",
            kind,
            interface.OUTPUTS[name] + (" Transient local." if name in LATCHED else ""),
        ]
        for name, (kind, _) in TOPICS.items()
    ]
    outputs.append(
        [
            "`/diagnostics`",
            "diagnostic_msgs/msg/DiagnosticArray",
            "State of stream and model; what is missing.",
        ]
    )
    rows = [
        [
            f"`{one.name}`",
            one.kind,
            f"`{one.default!r}`".replace("'", '"'),
            one.allowed,
            WHEN[one.change],
            one.description,
        ]
        for one in parameters.TABLE
    ]
    return f"""# The node's interface

Generated from the code by `python tools/interface_docs.py`; a test keeps it current. Names with `~/` are
private: `/d4rt/...` for a node named `d4rt` without a namespace. Lengths are in metres where a source of
scale is set and found (`metric` in answers and in `~/tracks`, `scale` in `/diagnostics`), else in units of
the scene: those of depth images, clouds, odometry, path and /tf, too, which have no field to say so. Pixels
are those of the image as published, the centre of the first one at (0, 0).

The world begins at the first camera, with the axes of `frames.base` where /tf knows them, else with that
camera's: x forward, z up. It begins anew after `~/reset`, where the stream breaks (another size or frame id,
a calibration that changes by more than a hundredth, a silence longer than `window.max_gap`, which a pause
counts as, too) and where windows cannot be joined. Nothing is placed in a world that ended: requests for
frame `world` or `~/get_camera` about its windows are refused.

## Topics in

Sensor-data quality of service (best effort, depth 10); that of the image is what `image_reliability` says.

{table(["topic", "type", "use"], inputs)}

Large images and Fast DDS: its default shared memory holds no 640x480 colour image, which then goes through
UDP in pieces, late, and with losses under load. Set `FASTDDS_DEFAULT_PROFILES_FILE` (on Humble and Jazzy
`FASTRTPS_DEFAULT_PROFILES_FILE`) to `<share>/d4rt_ros/config/fastdds_shm.xml` for the camera driver and the
node to give it enough. `/diagnostics` counts the images that were lost on the way; more than a tenth within 5
s are a warning, there and in the log, as are several publishers that send images in turn. On Humble, and with
Cyclone DDS anywhere, messages carry no numbers: counted is what the middleware reports, which is not what
overruns the node's queue of ten, and cameras that take turns are told apart by their frame ids only.

## Topics out

Reliable, keep last 5. Everything but odometry and /tf is computed only while somebody listens.

{table(["topic", "type", "content"], outputs)}

## Services

Every response begins with `success` and `message`, a sentence that names the field, the value and what is
allowed, and says which window answered. A zero stamp means the newest frame.

With Fast DDS every reply reaches all clients of a service: dozens of clients that call at once need a deeper
queue than the default 10, or they miss their own.

{calls(interface.SERVICES)}
## Action

{calls(interface.ACTIONS)}
## Message

### d4rt_ros/msg/Tracks

`{fields("d4rt_ros/msg/Tracks")[0]}`: see [Tracks](../msg/Tracks.msg).

## Parameters

{table(["name", "type", "default", "allowed", "may be set", "meaning"], rows)}
"""


def policy() -> str:
    """config/d4rt_policy.xml: what the node is allowed to do, and nothing else."""

    def group(kind: str, right: str, names: list[str]) -> str:
        lines = "\n".join(f"            <{kind}>{name}</{kind}>" for name in names)
        return f'          <{kind}s {right}="ALLOW">\n{lines}\n          </{kind}s>'

    lifecycle = ("change_state", "get_state", "get_available_states", "get_available_transitions")
    parameter = ("describe", "get", "list", "set")
    services = [*interface.SERVICES, *lifecycle, "get_transition_graph", "get_parameter_types"]
    services.append("get_type_description")  # of rclpy, from Jazzy on
    services += [f"{verb}_parameters" for verb in parameter] + ["set_parameters_atomically"]
    published = [name if name.startswith("/") else f"~{name}" for name in TOPICS]
    groups = "\n".join(
        (
            group("topic", "subscribe", [*interface.INPUTS, "/tf_static", "/parameter_events"]),
            group(
                "topic",
                "publish",
                [*published, "~transition_event", "/diagnostics", "/rosout", "/parameter_events"],
            ),
            group("service", "reply", [f"~{name}" for name in services]),
            group("action", "execute", [f"~{name}" for name in interface.ACTIONS]),
        )
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- SROS 2 policy of the node. Generated by `python tools/interface_docs.py`; use: docs/SECURITY.md. Remapped
     topics are to be named here as they are after remapping. -->
<policy version="0.2.0">
  <enclaves>
    <enclave path="/d4rt">
      <profiles>
        <profile ns="/" node="d4rt">
{groups}
        </profile>
      </profiles>
    </enclave>
  </enclaves>
</policy>
"""


def files() -> dict[Path, str]:
    """What the generated files should hold."""
    return {
        ROOT / "docs" / "ROS.md": markdown(),
        ROOT / "config" / "d4rt.yaml": parameters.yaml_text(),
        ROOT / "config" / "d4rt_policy.xml": policy(),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
