"""Prints the table of learning results at the end of a run."""

from __future__ import annotations

import pytest

from . import runs


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if runs.RESULTS:
        terminalreporter.section("learning results")
        terminalreporter.write_line(runs.HEADER)
        for result in runs.RESULTS:
            terminalreporter.write_line(result.row())
