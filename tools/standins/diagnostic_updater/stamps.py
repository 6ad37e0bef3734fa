"""TimeStampStatus: are stamps near the present?"""

from __future__ import annotations

import threading
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock
from rclpy.time import Time

from diagnostic_updater.updater import DiagnosticStatusWrapper, DiagnosticTask


class TimeStampStatusParam:
    """Allowed ages of stamps, in seconds; negative: in the future."""

    def __init__(self, min_acceptable: float = -1, max_acceptable: float = 5) -> None:
        """Takes the bounds."""
        self.min_acceptable, self.max_acceptable = min_acceptable, max_acceptable


class TimeStampStatus(DiagnosticTask):
    """Keeps the extremes of the stamps' ages since the last update."""

    def __init__(
        self,
        params: TimeStampStatusParam | None = None,
        name: str = "Timestamp Status",
        clock: Clock | None = None,
    ) -> None:
        """Starts watching."""
        super().__init__(name)
        self.params, self.clock, self.lock = (
            params or TimeStampStatusParam(),
            clock or Clock(),
            threading.Lock(),
        )
        self.ages: list[float] = []
        self.zero_seen = False

    def tick(self, stamp: Any) -> None:
        """Takes a stamp: a Time, a Time message, or seconds."""
        if isinstance(stamp, int | float):
            seconds = float(stamp)
        else:
            seconds = (stamp if isinstance(stamp, Time) else Time.from_msg(stamp)).nanoseconds / 1e9
        with self.lock:
            if seconds == 0:
                self.zero_seen = True
            else:
                age = self.clock.now().nanoseconds / 1e9 - seconds
                self.ages = [min([age, *self.ages]), max([age, *self.ages])]

    def run(self, stat: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        """Compares the ages with their bounds."""
        with self.lock:
            ages, zero_seen = self.ages, self.zero_seen
            self.ages, self.zero_seen = [], False
        stat.summary(DiagnosticStatus.OK, "Timestamps are reasonable.")
        if not ages:
            stat.summary(DiagnosticStatus.WARN, "No data since last update.")
        else:
            if ages[0] < self.params.min_acceptable:
                stat.summary(DiagnosticStatus.ERROR, "Timestamps too far in future seen.")
            if ages[-1] > self.params.max_acceptable:
                stat.mergeSummary(DiagnosticStatus.ERROR, "Timestamps too far in past seen.")
            stat.add("Earliest timestamp delay", ages[0])
            stat.add("Latest timestamp delay", ages[-1])
        if zero_seen:
            stat.mergeSummary(DiagnosticStatus.ERROR, "Zero timestamp seen.")
        stat.add("Earliest acceptable timestamp delay", self.params.min_acceptable)
        stat.add("Latest acceptable timestamp delay", self.params.max_acceptable)
        return stat
