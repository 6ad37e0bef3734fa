"""Installs the part that needs no ROS, with the command `d4rt`. CMakeLists.txt builds the ROS package."""

from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent


def requirements(name: str) -> list:
    """Names the packages that a requirements file lists."""
    lines = (root / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="d4rt_ros",
    version="0.1.0",
    description="D4RT for ROS 2: depth, points, tracks and camera motion as point queries",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["d4rt_ros", "d4rt_ros.*"]),
    package_data={"": ["py.typed", "weights/*", "recipes/*.yaml"]},
    # Where colcon puts it, too: `d4rt bag` writes the definition into bags.
    data_files=[("share/d4rt_ros/msg", ["msg/Tracks.msg"])],
    install_requires=requirements("requirements.txt"),
    extras_require={"test": requirements("tools/requirements-dev.txt")},
    entry_points={"console_scripts": ["d4rt = d4rt_ros.cli:main"]},
)
