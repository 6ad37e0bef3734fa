"""Every test process hears only itself: a ROS domain of its own, on this machine alone."""

import os

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
