"""Stand-in for diagnostic_updater: tasks that describe a node's health, published on /diagnostics."""

from diagnostic_updater.frequency import FrequencyStatus, FrequencyStatusParam
from diagnostic_updater.stamps import TimeStampStatus, TimeStampStatusParam
from diagnostic_updater.updater import (
    CompositeDiagnosticTask,
    DiagnosticStatusWrapper,
    DiagnosticTask,
    FunctionDiagnosticTask,
    Heartbeat,
    Updater,
)

__all__ = [
    "CompositeDiagnosticTask",
    "DiagnosticStatusWrapper",
    "DiagnosticTask",
    "FrequencyStatus",
    "FrequencyStatusParam",
    "FunctionDiagnosticTask",
    "Heartbeat",
    "TimeStampStatus",
    "TimeStampStatusParam",
    "Updater",
]
