"""Times the phases of an iteration on each rank."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from hvd_dqn.files import write_file

PHASES = ("collect", "sample", "transfer", "gradient", "allreduce", "apply", "bookkeeping")
"""Phases of an iteration. transfer: copies of arrays to and from TensorFlow. allreduce: includes the wait for other
ranks. bookkeeping: the rest of the iteration."""

_TRACED_EVENTS = 200_000
"""Maximum number of events in a trace (about 20 MB). Later events are dropped."""


class IterationProfile:
    """Sums the seconds of each phase over a log period, and records single events if a trace is requested."""

    def __init__(self, traced: bool = False) -> None:
        """Creates an empty profile."""
        self._traced = traced
        self._events: list[tuple[str, float, float, int]] = []
        self.last_seconds = 0.0
        """Of the latest iteration."""
        self._reset()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, start, time.perf_counter())

    def add(self, name: str, start: float, end: float) -> None:
        """Adds a time span of a phase, in seconds of `time.perf_counter`."""
        self._seconds[name] += end - start
        self._trace((name,), (start, end))

    def add_in_turn(self, phases: Sequence[str], marks: Sequence[float]) -> None:
        """Adds N repetitions of a sequence of phases.

        Args:
          phases: the names, in order.
          marks: [N * len(phases) + 1], seconds of `time.perf_counter`: the start of the first phase, then each end.
        """
        step = len(phases)
        for i, name in enumerate(phases):
            self._seconds[name] += sum(marks[i + 1 :: step]) - sum(marks[i:-1:step])
        self._trace(phases, marks)

    @contextlib.contextmanager
    def iteration(self) -> Iterator[None]:
        """Times an iteration. Time outside the phases counts as bookkeeping."""
        start, before = time.perf_counter(), sum(self._seconds.values())
        try:
            yield
        finally:
            taken = sum(self._seconds.values()) - before
            self.last_seconds = time.perf_counter() - start
            self._seconds["bookkeeping"] += max(0.0, self.last_seconds - taken)
            self._iterations += 1

    def take(self) -> dict[str, float]:
        """Returns the mean microseconds per iteration of each phase since the last call, and resets them."""
        scale = 1e6 / max(1, self._iterations)
        means = {name: seconds * scale for name, seconds in self._seconds.items()}
        self._reset()
        return means

    def write_trace(self, path: Path, rank: int) -> None:
        """Writes the events in the Trace Event Format of Perfetto and Chrome, with one process per rank.

        Raises:
          OSError: if the file cannot be written.
        """
        threads = {thread: i for i, thread in enumerate(dict.fromkeys(event[3] for event in self._events))}
        named = {"name": "process_name", "ph": "M", "pid": rank, "args": {"name": f"rank {rank}"}}
        events = [
            {
                "name": name,
                "ph": "X",
                "pid": rank,
                "tid": threads[thread],
                "ts": start * 1e6,
                "dur": (end - start) * 1e6,
            }
            for name, start, end, thread in self._events
        ]
        write_file(path, json.dumps({"traceEvents": [named, *events], "displayTimeUnit": "ms"}).encode())

    def _trace(self, phases: Sequence[str], marks: Sequence[float]) -> None:
        if self._traced and len(self._events) < _TRACED_EVENTS:
            thread = threading.get_ident()
            spans = zip(itertools.cycle(phases), itertools.pairwise(marks))
            self._events += [(name, start, end, thread) for name, (start, end) in spans]

    def _reset(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._iterations = 0


def resident_bytes() -> int:
    """Returns this process' resident memory (Linux), 0 where it cannot be read."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def over_ranks(phases: list[dict[str, float]]) -> dict[str, float]:
    """Returns the minimum, median and maximum over the ranks of each phase, in microseconds per iteration.

    `busy` is the sum of a rank's phases without the allreduce: what it would take if it waited for no other.
    """
    columns = {name: [own[name] for own in phases] for name in PHASES}
    columns["busy"] = [sum(own[name] for name in PHASES if name != "allreduce") for own in phases]
    summary = {}
    for name, values in columns.items():
        for statistic, value in (("min", min(values)), ("median", median(values)), ("max", max(values))):
            summary[f"{name}_microseconds_{statistic}"] = value
    return summary
