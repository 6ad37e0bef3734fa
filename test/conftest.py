"""Every test process hears only itself: a ROS domain of its own, on this machine alone."""

import logging
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `bench`; Humble's pytest has no pythonpath

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

# The pytest plugin of ROS's launch makes it the class of all loggers, and its loggers tell caplog nothing.
logging.setLoggerClass(logging.Logger)

_COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="module")
def node(tmp_path_factory, request):
    """The node in a process of its own, a window held; images of a module's CAMERA_SIZE, if it has one."""
    from field import FRAMES, FieldNode
    from room import SIZE

    folder = tmp_path_factory.mktemp("field")
    node = FieldNode(folder, size=getattr(request.module, "CAMERA_SIZE", SIZE))
    node.play(FRAMES)
    yield node
    node.close()


@pytest.fixture(scope="module")
def rig():
    """The node and its neighbours in this process, a window held."""
    from node_rig import FRAMES, Rig

    rig = Rig()
    rig.play(FRAMES)
    yield rig
    rig.close()


def pytest_runtest_logreport(report):
    """Counts what was survived: tests of faults that passed, and what they say that they did."""
    if report.when == "call" and report.passed and "fault" in report.keywords:
        _COUNTS.update({"faults": 1, **dict(report.user_properties)})


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """Says how much the tests of faults threw at the product."""
    if _COUNTS:
        terminalreporter.write_line(
            "survived: " + ", ".join(f"{count:g} {name}" for name, count in _COUNTS.items())
        )
