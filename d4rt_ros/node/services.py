"""All services. Handlers check, hand the work to the worker and wait for it, on the threads of a listener."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from d4rt_ros import conversions, tasks
from d4rt_ros.model import Queries
from d4rt_ros.node.answers import answer_columns, tracks_of
from d4rt_ros.node.interface import SERVICES
from d4rt_ros.node.listener import Listener, OnArrival, listened_group
from d4rt_ros.node.messages import REQUESTS, RclpyMessages, message_class
from d4rt_ros.node.requests import (
    Refused,
    check_confidence,
    check_points,
    coordinates,
    find_pixels,
    find_span,
    find_times,
    moved,
    name_window,
    poses_of,
    scene_of,
    unseen,
)
from d4rt_ros.node.session import Session
from d4rt_ros.outputs import published_pixels
from d4rt_ros.stream import NotHeld, QueueFull, WorkerStopped

if TYPE_CHECKING:
    from d4rt_ros.node.node import D4RTNode

PATIENCE = 60.0  # seconds that a request waits for the device
SPARE_THREADS = 2  # that refuse what comes while all the others wait for the device
EXPECTED = (ValueError, NotHeld, QueueFull, WorkerStopped)  # their messages are for the caller


class Services:
    """Creates all services on the node; every call gets an answer, in every lifecycle state."""

    def __init__(self, node: D4RTNode) -> None:
        """Create them."""
        self._node, self._types = node, RclpyMessages()
        self._limit, self._running, self._lock = int(node.values["query.queue"]), 0, threading.Lock()
        group, takers = listened_group(in_turn=False), {}
        for name, (kind, _) in SERVICES.items():
            handler = self._handler(getattr(self, f"_{name}"))
            service = node.create_service(
                message_class(kind), f"~/{name}", handler, qos_profile=REQUESTS, callback_group=group
            )
            takers[service] = self._taker(service)
        self._listener = Listener(node, "d4rt-request", takers, self._limit + SPARE_THREADS)

    def close(self) -> None:
        """Take no more requests."""
        self._listener.close()

    def _taker(self, service: Any) -> OnArrival:
        """Has requests answered by the handler of this service."""
        kind = service.srv_type.Response
        spare = [kind()]  # an empty response has a dozen messages in it; it is made while nobody waits

        def take(request: Any, header: Any) -> None:
            try:
                try:
                    response = spare.pop()
                except IndexError:
                    response = kind()
                service.send_response(service.callback(request, response), header)
                if not spare:
                    spare.append(kind())
            except Exception as error:  # the answer did not get through: its client is gone, or we are
                if self._node.context.ok():
                    self._node.get_logger().error(
                        f"{service.srv_name} could not answer: {type(error).__name__}: {error}"
                    )

        return take

    def _handler(self, work: Callable[[Session, Any, Any], None]) -> Callable[[Any, Any], Any]:
        """Turns what goes wrong into an answer."""

        def handle(request: Any, response: Any) -> Any:
            session = self._node.session
            try:
                if session is None:
                    raise Refused(f"the node is {self._node.state_label}; it answers while it is active")
                self._enter()
                try:
                    response.success = True
                    work(session, request, response)
                finally:
                    self._leave()
            except Exception as error:
                response = type(response)(success=False)
                if isinstance(error, EXPECTED):
                    response.message = str(error)
                else:
                    response.message = f"{type(error).__name__}: {error}"
                    self._node.get_logger().error(f"a request failed: {response.message}")
                if session is not None and hasattr(response, "window_start"):
                    name_window(self._types, response, session.pipeline.history.newest)
            return response

        return handle

    def _enter(self) -> None:
        with self._lock:
            if self._running >= self._limit:
                raise QueueFull(
                    f"{self._running} requests are waiting already, query.queue allows {self._limit}; ask "
                    "again later"
                )
            self._running += 1

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1

    def _query(self, session: Session, request: Any, response: Any) -> None:
        count = len(request.u)
        check_points(session, "u", count)
        result, times = find_times(session, request, count)
        u, v, seen = find_pixels(request.u, request.v, result)
        frames = {one for one in times if isinstance(one, int)}  # mostly a single one
        filled = {one: torch.full((count,), one, device=u.device) for one in frames}
        indices = (
            filled[one] if isinstance(one, int) else torch.from_numpy(one).to(u.device) for one in times
        )
        queries = Queries(u, v, *indices)
        answers = self._wait(session.worker.submit_decode(scene_of(result), queries))
        response.message = unseen(seen)
        columns = answer_columns(answers, seen, result.scale)
        columns["u_v"] = published_pixels(columns["u_v"], result)
        camera = times[-1] if isinstance(times[-1], int) else int(times[-1][0])
        same = isinstance(times[-1], int) or bool((times[-1] == camera).all())
        stamp = result.stamps[camera if same else -1]
        response.points = conversions.point_cloud(
            self._types, stamp, result.frame_id, columns.pop("xyz"), **columns
        )
        response.metric = result.metric
        name_window(self._types, response, result)

    def _track_points(self, session: Session, request: Any, response: Any) -> None:
        span = find_span(session, request.start, request.end, conversions.stamp_ns(request.stamp))
        result = span.result
        check_points(session, "u times the frames of the span", len(request.u) * len(span.frames))
        frame_id, to_frame = coordinates(request.frame, session, result, span.last)
        u, v, seen = find_pixels(request.u, request.v, result)

        def track() -> tasks.PointTracks:
            return tasks.tracks(scene_of(result), u, v, span.at, list(span.frames), "world", span.last)

        found = self._wait(session.worker.submit(track))
        response.message = unseen(seen)
        response.tracks = tracks_of(self._types, found, result, frame_id, to_frame, seen=seen)
        name_window(self._types, response, result)

    def _get_depth(self, session: Session, request: Any, response: Any) -> None:
        result, (frame,) = session.pipeline.history.find(conversions.stamp_ns(request.stamp))
        least = session.settings.points_min_confidence
        response.metric = result.metric
        name_window(self._types, response, result)
        if len(request.u) or len(request.v):
            if request.width or request.height:
                raise Refused(
                    f"width is {request.width} and height is {request.height}; both must be 0 where u and "
                    "v are given"
                )
            check_points(session, "u", len(request.u))
            u, v, seen = find_pixels(request.u, request.v, result)
            found = self._wait(
                session.worker.submit(lambda: tasks.depth_at(scene_of(result), frame, u, v, least))
            )
            depths = np.where(seen, found.with_nan().cpu().numpy() * result.scale, np.nan).astype(np.float32)
            response.depths, response.message = self._types.array("f", depths), unseen(seen)
            return
        size = int(request.height), int(request.width)
        if bool(size[0]) != bool(size[1]):
            raise Refused(f"width is {size[1]} and height is {size[0]}; give both, or 0 for both")
        if size == (0, 0):
            size = result.image_size
        elif size != tuple(result.image_size):
            check_points(session, "width times height", size[0] * size[1])
        found = self._wait(
            session.worker.submit(lambda: tasks.depth_map(scene_of(result), frame, size, least))
        )
        depth = (found.with_nan().float().cpu().numpy() * result.scale).astype(np.float32)
        at = result.stamps[frame], result.frame_id
        response.depth = conversions.depth_image(self._types, *at, depth)
        if result.intrinsics is not None:
            scaling = np.diag([size[1] / result.image_size[1], size[0] / result.image_size[0], 1.0])
            response.camera_info = conversions.camera_info(
                self._types, *at, size, scaling @ result.intrinsics
            )

    def _get_point_cloud(self, session: Session, request: Any, response: Any) -> None:
        span = find_span(session, request.start, request.end)
        result = span.result
        stride = int(request.stride) or session.settings.points_stride
        least = check_confidence(request.min_confidence, session)
        height, width = result.image_size
        per_frame = -(-height // stride) * -(-width // stride)
        check_points(session, "span and stride", per_frame * len(span.frames))
        frame_id, to_frame = coordinates(request.frame, session, result, span.last)
        found = self._wait(
            session.worker.submit(
                lambda: tasks.point_cloud(scene_of(result), list(span.frames), stride, span.last, least)
            )
        )
        xyz = moved(found.xyz.cpu().numpy() * result.scale, to_frame)
        response.points = conversions.point_cloud(
            self._types,
            result.stamps[span.last],
            frame_id,
            xyz,
            rgb=found.rgb.cpu().numpy(),
            confidence=found.confidence.cpu().numpy(),
        )
        response.message, response.metric = found.reason, result.metric
        name_window(self._types, response, result)

    def _get_camera(self, session: Session, request: Any, response: Any) -> None:
        span = find_span(session, request.start, request.end)
        result = span.result
        poses = poses_of(session, result)
        response.poses = [
            conversions.pose_stamped(self._types, result.stamps[frame], session.world, poses[frame])
            for frame in span.frames
        ]
        response.intrinsics_known, response.metric = result.intrinsics_known, result.metric
        if result.intrinsics is not None:
            camera = result.camera
            lens = (camera.model, camera.coefficients) if camera is not None and camera.distorted else ()
            response.camera_info = conversions.camera_info(
                self._types,
                result.stamps[span.last],
                result.frame_id,
                result.image_size,
                result.intrinsics,
                *lens,
            )
        name_window(self._types, response, result)

    def _follow_points(self, session: Session, request: Any, response: Any) -> None:
        check_points(session, "u", len(request.u))
        stamp = conversions.stamp_ns(request.stamp)
        result, (frame,) = session.pipeline.history.find(stamp)
        u, v, seen = find_pixels(request.u, request.v, result)
        if not seen.all():
            first = int(np.argmin(seen))
            raise Refused(
                f"u[{first}], v[{first}] lies outside the undistorted image, where nothing can be followed"
            )
        stamp = result.stamps[frame]
        response.ids = self._types.array(
            "I", self._wait(session.follow(u.cpu().numpy(), v.cpu().numpy(), stamp))
        )
        name_window(self._types, response, result)

    def _unfollow_points(self, session: Session, request: Any, response: Any) -> None:
        response.ids = self._types.array("I", self._wait(session.unfollow(list(request.ids))))
        name_window(self._types, response, session.pipeline.history.newest)

    def _reset(self, session: Session, request: Any, response: Any) -> None:
        self._wait(session.reset("reset was called"))
        response.message = "all windows are forgotten"

    def _pause(self, session: Session, request: Any, response: Any) -> None:
        session.paused = bool(request.data)
        response.message = "paused" if session.paused else "running"

    def _wait(self, future: Future[Any]) -> Any:
        try:
            return future.result(PATIENCE)
        except FutureTimeout:
            future.cancel()
            raise Refused(
                f"the device did not answer within {PATIENCE:.0f} s; ask for less, or look at /diagnostics"
            ) from None
