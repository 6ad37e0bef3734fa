"""Every test process hears only itself: a ROS domain of its own, on this machine alone."""

import os
import sys

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def pytest_terminal_summary(terminalreporter):
    """Says how much the slow tests threw at the node."""
    counts = getattr(sys.modules.get("node_rig"), "COUNTS", {})
    if any(counts.values()):
        terminalreporter.write_line(", ".join(f"{value:g} {name}" for name, value in counts.items()))
