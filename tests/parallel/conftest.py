"""Keeps ranks up for the session, and counts the faults that were injected and survived for a table at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from persistent_ranks import PersistentRanks

_INJECTED: Counter[str] = Counter()
_SURVIVED: Counter[str] = Counter()


@pytest.fixture(scope="session")
def persistent_ranks() -> Iterator[PersistentRanks]:
    """Yields ranks that run one program after another without a launch for each."""
    with PersistentRanks() as ranks:
        yield ranks


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Yields a function that a test tells of each fault that it injected; they are survived if the test passes."""
    own: Counter[str] = Counter()

    def tell(kind: str, times: int = 1) -> None:
        own[kind] += times
        _INJECTED[kind] += times

    failed = request.session.testsfailed
    yield tell
    if request.session.testsfailed == failed:
        _SURVIVED.update(own)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table."""
    if _INJECTED:
        terminalreporter.section("faults")
        terminalreporter.write_line("| fault | injected | survived |\n|---|---|---|")
        for kind, times in sorted(_INJECTED.items()):
            terminalreporter.write_line(f"| {kind} | {times} | {_SURVIVED[kind]} |")
