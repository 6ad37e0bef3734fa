"""/diagnostics: how the stream and the network are doing, and what is missing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from diagnostic_msgs.msg import DiagnosticStatus
from diagnostic_updater import Updater

if TYPE_CHECKING:
    from d4rt_ros.node.node import D4RTNode

_PATIENCE = 2.0  # periods without a word


class Diagnostics:
    """Two entries, once a second: ``stream`` and ``model``."""

    def __init__(self, node: D4RTNode) -> None:
        """Create the publisher on the node."""
        self._node = node
        self._images, self._looked = 0, time.monotonic()
        self._updater = Updater(node, period=1.0)
        self._updater.setHardwareID(node.get_fully_qualified_name())
        place = node.get_namespace().strip("/")  # or several cameras' nodes would speak under one name
        for name, entry in (("stream", self._stream), ("model", self._model)):
            self._updater.add(f"{place} {name}".strip(), entry)

    def look(self) -> None:
        """Speak up where the updater's timer does not: it waits for a simulated clock that stands still."""
        period = float(self._node.get_parameter("diagnostic_updater.period").value)
        if time.monotonic() - self._looked > _PATIENCE * period:
            self._updater.force_update()

    def _stream(self, status: Any) -> Any:
        session = self._node.session
        now, images = time.monotonic(), 0 if session is None else session.inputs.counters.images
        rate = max(images - self._images, 0) / max(now - self._looked, 1e-3)
        self._images, self._looked = images, now
        if session is None:
            problem = self._node.start_problem
            level = DiagnosticStatus.ERROR if problem else DiagnosticStatus.OK
            status.summary(level, problem or f"node is {self._node.state_label}")
            return status
        troubles = [*session.supervision.troubles.values(), *([session.problem] if session.problem else [])]
        if troubles:
            level = DiagnosticStatus.ERROR if session.problem else DiagnosticStatus.WARN
            status.summary(level, "; ".join(troubles))
        else:
            status.summary(DiagnosticStatus.OK, "paused" if session.paused else "running")
        status.add("input rate (Hz)", f"{rate:.1f}")
        heard = session.inputs.counters.heard.get("image")
        status.add("age of the newest frame (s)", "none yet" if heard is None else f"{now - heard:.2f}")
        for name, value in session.latency().items():
            status.add(f"window latency {name} (s)", f"{value:.3f}")
        for name, count in session.figures().items():
            status.add(name, str(count))
        status.add("scale source", str(session.values["scale.source"]))
        if session.newest is not None:
            status.add("scale", session.newest.scale_state)
            for step, seconds in session.newest.seconds.items():
                status.add(f"last window, {step} (s)", f"{seconds:.4f}")
        status.add("tf mode", str(session.values["tf.mode"]))
        if session.window.restarts:
            status.add("started over because", session.window.restarts)
        return status

    def _model(self, status: Any) -> Any:
        model, values = self._node.model, self._node.values
        if model is None:
            level = DiagnosticStatus.ERROR if self._node.load_problem else DiagnosticStatus.OK
            status.summary(level, self._node.load_problem or "not loaded")
            return status
        status.summary(DiagnosticStatus.OK, "loaded")
        status.add("checkpoint", str(values["model.checkpoint"]))
        status.add("parameters", str(sum(part.numel() for part in model.parameters())))
        status.add("frames of a window", str(model.config.frames))
        status.add("device", str(model.device))
        status.add("precision", str(model.precision).removeprefix("torch."))
        if model.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(model.device)
            status.add(
                "device memory used by this process (MiB)",
                str(torch.cuda.memory_reserved(model.device) >> 20),
            )
            status.add("device memory free (MiB)", f"{free >> 20} of {total >> 20}")
        return status
