"""One call of every service and of the action, each with a look at what came back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from listener import Listener
from rclpy.action import ActionClient
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from d4rt_ros.action import TrackAll
from d4rt_ros.srv import FollowPoints, GetCamera, GetDepth, GetPointCloud, Query, TrackPoints, UnfollowPoints

TIMEOUT = 60.0
FIRST_CALLS = (  # pause and reset follow when the pictures are made
    "query",
    "query outside the image",
    "track_points",
    "get_depth",
    "get_depth of pixels",
    "get_point_cloud",
    "get_camera",
    "follow_points",
    "unfollow_points",
)
UNDER_WAY = 2  # windows: one that is encoded, one that waits


class NoAnswer(RuntimeError):
    """Something did not answer, or answered with a refusal that it should not have given."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    seconds: float
    answer: str


class Caller:
    """Calls services by name; `rows` holds what came back."""

    def __init__(self, node: Node, listener: Listener) -> None:
        """Create the clients."""
        self.node, self.listener = node, listener
        self.rows: list[Row] = []
        kinds = {
            "query": Query,
            "track_points": TrackPoints,
            "get_depth": GetDepth,
            "get_point_cloud": GetPointCloud,
            "get_camera": GetCamera,
            "follow_points": FollowPoints,
            "unfollow_points": UnfollowPoints,
            "reset": Trigger,
            "pause": SetBool,
        }
        self.clients = {name: node.create_client(kind, f"/d4rt/{name}") for name, kind in kinds.items()}
        self.action = ActionClient(node, TrackAll, "/d4rt/track_all")

    def run(self, name: str) -> None:
        """Make one call and note what came back.

        Raises:
            NoAnswer: it was not answered within TIMEOUT, or refused without need.
        """
        work: Callable[[], str] = getattr(self, "_" + name.replace(" ", "_"))
        started = time.monotonic()
        answer = work()
        self.rows.append(Row(name, getattr(self, "took", time.monotonic() - started), answer))
        print(f"          {name}: {answer}", flush=True)

    def ask(self, name: str, refused: bool = False, **fields: Any) -> Any:
        """Response of a service."""
        client = self.clients[name]
        if not client.wait_for_service(TIMEOUT):
            raise NoAnswer(f"service /d4rt/{name} is not there")
        started = time.monotonic()
        response = self._wait(client.call_async(client.srv_type.Request(**fields)), f"service /d4rt/{name}")
        self.took = time.monotonic() - started
        if response.success == refused:
            raise NoAnswer(f"service /d4rt/{name} answered success={response.success}: {response.message}")
        return response

    def pixels(self, across: int = 5, down: int = 4) -> dict[str, list[float]]:
        """U and v of a grid of pixels."""
        height, width = self.listener.size or (0, 0)
        u, v = np.meshgrid(
            (np.arange(across) + 0.5) / across * width, (np.arange(down) + 0.5) / down * height
        )
        return {"u": u.ravel().astype(float).tolist(), "v": v.ravel().astype(float).tolist()}

    def _wait(self, future: Any, what: str) -> Any:
        deadline = time.monotonic() + TIMEOUT
        while not future.done():
            if time.monotonic() > deadline:
                raise NoAnswer(f"{what} did not answer within {TIMEOUT:.0f} s")
            time.sleep(0.0005)
        if future.exception() is not None:
            raise NoAnswer(f"{what} failed: {future.exception()}")
        return future.result()

    def _query(self) -> str:
        response = self.ask("query", **self.pixels())
        fields = [field.name for field in response.points.fields]
        values = np.frombuffer(response.points.data, np.float32).reshape(response.points.width, len(fields))
        if len(values) != 20 or not np.isfinite(values[:, :3]).any():
            raise NoAnswer(f"query for 20 points gave {len(values)}: {values[:, :3].tolist()}")
        depth, sure = np.nanmedian(values[:, 2]), np.nanmedian(values[:, fields.index("confidence")])
        return f"20 points, median depth {depth:.2f} {_unit(response)}, median confidence {sure:.2f}"

    def _query_outside_the_image(self) -> str:
        return "refused: " + self.ask("query", refused=True, u=[-7.0], v=[3.0]).message

    def _track_points(self) -> str:
        tracks = self.ask("track_points", **self.pixels()).tracks
        frames, points = len(tracks.stamps), len(tracks.ids)
        seen = np.asarray(tracks.visibility) > 0.5
        return f"{points} points over {frames} frames, seen in {100 * seen.mean():.0f} % of them"

    def _get_depth(self) -> str:
        response = self.ask("get_depth", width=160, height=120)
        depth = np.frombuffer(response.depth.data, np.float32)
        known = depth[np.isfinite(depth)]
        if depth.size != 160 * 120:
            raise NoAnswer(f"get_depth of 160x120 pixels gave {depth.size}")
        share = f"{100 * known.size / depth.size:.0f} % known"
        span = f", {known.min():.2f} to {known.max():.2f} {_unit(response)}" if known.size else ""
        return f"160x120 pixels, {share}{span}"

    def _get_depth_of_pixels(self) -> str:
        response = self.ask("get_depth", **self.pixels())
        return f"{len(response.depths)} depths, median {np.nanmedian(response.depths):.2f} {_unit(response)}"

    def _get_point_cloud(self) -> str:
        response = self.ask("get_point_cloud", stride=8, frame="world")
        return f"{response.points.width} points in frame {response.points.header.frame_id}"

    def _get_camera(self) -> str:
        response = self.ask("get_camera")
        kind = "given" if response.intrinsics_known else "estimated"
        return f"{len(response.poses)} poses, focal length {response.camera_info.k[0]:.1f} pixels ({kind})"

    def _follow_points(self) -> str:
        self.followed = list(self.ask("follow_points", u=[80.0, 160.0], v=[60.0, 120.0]).ids)

        def published() -> bool:
            tracks = self.listener.seen.tracks
            return tracks is not None and set(self.followed) <= set(tracks[1].tolist())

        if not self.listener.wait_for(published, 30.0):
            raise NoAnswer(f"the followed points {self.followed} did not come on /d4rt/tracks")
        return f"ids {self.followed}, then on /d4rt/tracks"

    def _unfollow_points(self) -> str:
        left = list(self.ask("unfollow_points", ids=self.followed).ids)
        if set(left) & set(self.followed):
            raise NoAnswer(f"points {self.followed} were given up, but {left} are still followed")
        return f"{len(self.followed)} points given up"

    def _pause(self) -> str:
        self.ask("pause", data=True)
        took = self.took
        before = heard = len(self.listener.latencies)
        ended = time.monotonic()
        while time.monotonic() < ended + 1.5:  # windows under way end, on a busy machine later
            if len(self.listener.latencies) > heard:
                heard, ended = len(self.listener.latencies), time.monotonic()
            if heard > before + UNDER_WAY:
                raise NoAnswer(f"paused, the node published {heard - before} more windows")
            time.sleep(0.05)
        self.ask("query", **self.pixels())
        self.ask("pause", data=False)
        self.took = took
        return "no windows while paused, queries answered, then resumed"

    def _track_all(self) -> str:
        if not self.action.wait_for_server(TIMEOUT):
            raise NoAnswer("action /d4rt/track_all is not there")
        shares: list[float] = []
        started = time.monotonic()
        # About as many pixels whatever the footage: windows are encoded meanwhile, and come first.
        size = self.listener.size or (240, 320)
        goal = TrackAll.Goal(stride=max(8, max(size) // 40), min_confidence=1e-6)
        sent = self.action.send_goal_async(goal, lambda message: shares.append(message.feedback.covered))
        handle = self._wait(sent, "action /d4rt/track_all")
        if not handle.accepted:
            raise NoAnswer("action /d4rt/track_all did not take the goal")
        result = self._wait(handle.get_result_async(), "action /d4rt/track_all").result
        self.took = time.monotonic() - started
        if not result.success:
            raise NoAnswer(f"action /d4rt/track_all failed: {result.message}")
        return (
            f"{len(result.tracks.ids)} tracks, {result.queries} queries instead of {result.naive_queries}, "
            f"{len(shares)} times progress"
        )

    def _reset(self) -> str:
        return self.ask("reset").message


def _unit(response: Any) -> str:
    return "m" if response.metric else "units"
