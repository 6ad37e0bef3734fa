"""The ROS 2 node."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code of the process."""
    # Imported here, so that the parameter table can be read on a machine without ROS.
    from d4rt_ros.node.run import run

    return run(args)
