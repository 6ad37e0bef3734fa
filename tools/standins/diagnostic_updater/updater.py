"""Status, tasks, and the updater that runs and publishes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node


class DiagnosticStatusWrapper(DiagnosticStatus):
    """A status with the means to fill it."""

    def summary(self, *args: Any) -> None:
        """Sets level and message: those of a status, or the two given."""
        if len(args) == 1:
            args = (args[0].level, args[0].message)
        self.level, self.message = args

    def clearSummary(self) -> None:  # noqa: N802
        """Sets OK and no message."""
        self.summary(DiagnosticStatus.OK, "")

    def mergeSummary(self, *args: Any) -> None:  # noqa: N802
        """Keeps the worse level, and both messages if both are bad or both are good."""
        level, message = (args[0].level, args[0].message) if len(args) == 1 else args
        bad, bad_here = level > DiagnosticStatus.OK, self.level > DiagnosticStatus.OK
        if bad == bad_here:
            self.message = "; ".join(filter(None, [self.message, message]))
        elif bad:
            self.message = message
        self.level = max(self.level, level)

    def add(self, key: str, value: str) -> None:
        """Adds a key and its value."""
        self.values.append(KeyValue(key=key, value=value))


class DiagnosticTask:
    """Something that fills a status."""

    def __init__(self, name: str) -> None:
        """Names it."""
        self.name = name

    def getName(self) -> str:  # noqa: N802
        """Returns its name."""
        return self.name

    def run(self, stat: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        """Fills and returns the status."""
        return stat


class FunctionDiagnosticTask(DiagnosticTask):
    """A function that fills a status and returns it."""

    def __init__(self, name: str, fn: Callable[[DiagnosticStatusWrapper], DiagnosticStatusWrapper]) -> None:
        """Names it."""
        super().__init__(name)
        self.run = fn  # type: ignore[method-assign]


class Updater:
    """Runs all tasks every period, and publishes what they say."""

    def __init__(self, node: Node, period: float = 1.0) -> None:
        """Creates publisher, timer and the parameter diagnostic_updater.period (s)."""
        self.node, self.clock = node, node.get_clock()
        self.publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.period = node.declare_parameter("diagnostic_updater.period", period).value
        self.timer = node.create_timer(self.period, self.update)
        self.hwid, self.tasks, self.lock = "", [], threading.Lock()

    def setHardwareID(self, hwid: str) -> None:  # noqa: N802
        """Sets the hardware id of every status."""
        self.hwid = hwid

    def add(self, *args: Any) -> None:
        """Adds a task, or a name and a function."""
        task = args[0] if len(args) == 1 else FunctionDiagnosticTask(*args)
        with self.lock:
            self.tasks.append(task)
        self._publish([self._status(task, DiagnosticStatus.OK, "Node starting up")])

    def removeByName(self, name: str) -> bool:  # noqa: N802
        """Removes the first task of that name, and tells whether there was one."""
        with self.lock:
            found = next((task for task in self.tasks if task.getName() == name), None)
            if found is not None:
                self.tasks.remove(found)
        return found is not None

    def update(self) -> None:
        """Is called by the timer."""
        self.force_update()

    def force_update(self) -> None:
        """Runs all tasks and publishes now."""
        with self.lock:
            tasks = list(self.tasks)
        self._publish(
            [task.run(self._status(task, DiagnosticStatus.ERROR, "No message was set")) for task in tasks]
        )

    def _status(self, task: DiagnosticTask, level: bytes, message: str) -> DiagnosticStatusWrapper:
        status = DiagnosticStatusWrapper(name=task.getName(), hardware_id=self.hwid)
        status.summary(level, message)
        return status

    def _publish(self, statuses: list[DiagnosticStatusWrapper]) -> None:
        array = DiagnosticArray()
        array.header.stamp = self.clock.now().to_msg()
        for wrapped in statuses:
            status = DiagnosticStatus(level=wrapped.level, name=f"{self.node.get_name()}: {wrapped.name}")
            status.message, status.hardware_id, status.values = (
                wrapped.message,
                wrapped.hardware_id,
                wrapped.values,
            )
            array.status.append(status)
        self.publisher.publish(array)
