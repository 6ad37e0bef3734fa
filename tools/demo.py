"""The main job on real footage, over real DDS: camera driver, node and client, each a process of its own.

    python tools/demo.py [VIDEO_OR_FOLDER] [--fps 10] [--out demo_out] [--set name=value]

Leaves pictures, logs and a rosbag2 of all outputs in the folder. Exit code 0 if everything answered.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / "tools" / "demo"
LIMIT = 540.0  # seconds for the whole demo


def main() -> int:
    """Run the three processes; returns the exit code of the client."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "footage", nargs="?", type=Path, help="video file or folder of images; default: a desk (TUM)"
    )
    parser.add_argument("--fps", type=float, default=10.0, help="frames per second of the camera")
    parser.add_argument("--out", type=Path, default=ROOT / "demo_out")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the node"
    )
    args = parser.parse_args()
    if args.footage is not None and not args.footage.exists():
        parser.error(f"{args.footage} does not exist")
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # The installed node runs on the Python that it finds first.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    # A robot nearby shall not hear the demo, nor the demo the robot.
    environment.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    # By default Fast DDS has no room for larger images in shared memory, and loses them on the way.
    profile = Path(__file__).resolve().parents[1] / "config" / "fastdds_shm.xml"
    for library in ("FASTDDS", "FASTRTPS"):  # the latter before Kilted
        environment.setdefault(f"{library}_DEFAULT_PROFILES_FILE", str(profile))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the children are ended, too
    print(f"camera, node and client on ROS domain {environment['ROS_DOMAIN_ID']}", flush=True)
    camera = [sys.executable, str(PARTS / "camera.py"), *([str(args.footage)] if args.footage else [])]
    with ExitStack() as stack:
        node = stack.enter_context(process("node", node_command(args.set), environment, args.out))
        feed = stack.enter_context(
            process("camera", [*camera, "--fps", str(args.fps)], environment, args.out)
        )
        command = [sys.executable, str(PARTS / "client.py"), str(args.out)]
        client = stack.enter_context(process("client", command, environment, None))
        return watch({"node": node, "camera": feed}, client, args.out)


def node_command(assignments: list[str]) -> list[str]:
    """What `ros2 launch d4rt_ros d4rt.launch.py image:=/camera/image_raw ...` starts."""
    prefixes = [Path(path) for path in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if path]
    for prefix in (*prefixes, Path(sys.prefix)):
        executable = prefix / "lib" / "d4rt_ros" / "d4rt_node"
        if executable.exists():
            break
    else:
        sys.exit("the node is not installed; run `make setup`, or source the workspace that it was built in")
    remaps = [
        f"{name}:=/camera/{topic}" for name, topic in (("image", "image_raw"), ("camera_info", "camera_info"))
    ]
    settings = [assignment.replace("=", ":=", 1) for assignment in ["tf.mode=world_to_camera", *assignments]]
    return [
        str(executable),
        "--ros-args",
        "-r",
        "__node:=d4rt",
        *(word for remap in remaps for word in ("-r", remap)),
        "--params-file",
        str(prefix / "share" / "d4rt_ros" / "config" / "d4rt.yaml"),
        *(word for setting in settings for word in ("-p", setting)),
    ]


@contextmanager
def process(
    name: str, command: list[str], environment: dict[str, str], logs: Path | None
) -> Iterator[subprocess.Popen]:
    """A child that is ended with the block; its output goes to NAME.log, or here."""
    with ExitStack() as stack:
        log = stack.enter_context((logs / f"{name}.log").open("w")) if logs else None
        child = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT if log else None
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def watch(servers: dict[str, subprocess.Popen], client: subprocess.Popen, folder: Path) -> int:
    """Wait for the client; 1 if a server ends before it, or if it takes too long."""
    deadline = time.monotonic() + LIMIT
    while client.poll() is None:
        for name, server in servers.items():
            if server.poll() is not None:
                log = (folder / f"{name}.log").read_text().splitlines()
                print(f"demo failed: the {name} ended with code {server.returncode}:", *log[-15:], sep="\n  ")
                return 1
        if time.monotonic() > deadline:
            print(f"demo failed: not done after {LIMIT:.0f} s; see the logs in {folder}")
            return 1
        time.sleep(0.1)
    if client.returncode:
        print(f"see {folder / 'node.log'}")
    return client.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
