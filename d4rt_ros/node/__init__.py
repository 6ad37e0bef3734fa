"""The ROS 2 node."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code of the process."""
    # Loading the libraries takes seconds, and a signal in the middle of it must not end in a traceback
    # either.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    # Here and not above, also because the parameter table is read on machines without ROS.
    from d4rt_ros.node.run import run

    return run(args)
