"""FrequencyStatus: does something happen as often as it should?"""

from __future__ import annotations

import threading

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock

from diagnostic_updater.updater import DiagnosticStatusWrapper, DiagnosticTask


class FrequencyStatusParam:
    """Allowed frequencies."""

    def __init__(self, freq_bound: dict[str, float], tolerance: float = 0.1, window_size: int = 5) -> None:
        """Takes bounds (min, max) in Hz, the share by which they may be missed, the updates looked back."""
        self.freq_bound, self.tolerance, self.window_size = freq_bound, tolerance, window_size


class FrequencyStatus(DiagnosticTask):
    """Counts ticks over the last window_size updates."""

    def __init__(
        self, params: FrequencyStatusParam, name: str = "FrequencyStatus", clock: Clock | None = None
    ) -> None:
        """Starts counting."""
        super().__init__(name)
        self.params, self.clock, self.lock = params, clock or Clock(), threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets all ticks."""
        with self.lock:
            self.count = 0
            self.history = [(self.clock.now(), 0)]

    def tick(self) -> None:
        """Counts one."""
        with self.lock:
            self.count += 1

    def run(self, stat: DiagnosticStatusWrapper) -> DiagnosticStatusWrapper:
        """Compares the frequency with its bounds."""
        with self.lock:
            now = self.clock.now()
            since, before = self.history[0]
            seconds = (now - since).nanoseconds / 1e9
            events = self.count - before
            self.history = [*self.history, (now, self.count)][-self.params.window_size :]
        frequency = events / seconds if seconds > 0 else 0.0
        low, high = self.params.freq_bound["min"], self.params.freq_bound["max"]
        if events == 0:
            stat.summary(DiagnosticStatus.ERROR, "No events recorded.")
        elif frequency < low * (1 - self.params.tolerance):
            stat.summary(DiagnosticStatus.WARN, "Frequency too low.")
        elif frequency > high * (1 + self.params.tolerance):
            stat.summary(DiagnosticStatus.WARN, "Frequency too high.")
        else:
            stat.summary(DiagnosticStatus.OK, "Desired frequency met")
        stat.add("Events in window", events)
        stat.add("Events since startup", self.count)
        stat.add("Duration of window (s)", seconds)
        stat.add("Actual frequency (Hz)", frequency)
        stat.add("Minimum acceptable frequency (Hz)", low * (1 - self.params.tolerance))
        stat.add("Maximum acceptable frequency (Hz)", high * (1 + self.params.tolerance))
        return stat
