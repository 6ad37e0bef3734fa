"""Stand-in for diagnostic_updater: tasks that describe a node's health, published on /diagnostics."""

from diagnostic_updater.updater import (
    DiagnosticStatusWrapper,
    DiagnosticTask,
    FunctionDiagnosticTask,
    Updater,
)

__all__ = ["DiagnosticStatusWrapper", "DiagnosticTask", "FunctionDiagnosticTask", "Updater"]
