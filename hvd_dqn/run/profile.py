"""Where the time of an iteration goes, per rank, at the cost of reading a clock."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

PHASES = ("collect", "sample", "transfer", "gradient", "allreduce", "apply", "bookkeeping")
"""Parts of an iteration. transfer: handing arrays to TensorFlow and back; allreduce, and apply where each rank updates
a part: waiting for others included; bookkeeping: whatever the others leave of the iteration."""

_TRACED_EVENTS = 200_000
"""Events that a trace keeps, the first ones: about 20 MB."""


class IterationProfile:
    """Sums the seconds of each phase between two log lines, and keeps every single one where a trace is asked for."""

    def __init__(self, traced: bool = False) -> None:
        """Starts empty."""
        self._traced = traced
        self._events: list[tuple[str, float, float, int]] = []
        self._start_anew()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, start, time.perf_counter())

    def add(self, name: str, start: float, end: float) -> None:
        """Adds a phase's stretch of time, in seconds of `time.perf_counter`."""
        self._seconds[name] += end - start
        self._trace((name,), (start, end))

    def add_in_turn(self, phases: Sequence[str], marks: Sequence[float]) -> None:
        """Adds phases that followed one another, over and over.

        Args:
          phases: their names.
          marks: [N * len(phases) + 1], seconds of `time.perf_counter`: the first phase's start, then every one's end.
        """
        step = len(phases)
        for i, name in enumerate(phases):
            self._seconds[name] += sum(marks[i + 1 :: step]) - sum(marks[i:-1:step])
        self._trace(phases, marks)

    @contextlib.contextmanager
    def iteration(self) -> Iterator[None]:
        """Times an iteration; what no phase has taken of it is bookkeeping."""
        start, before = time.perf_counter(), sum(self._seconds.values())
        try:
            yield
        finally:
            taken = sum(self._seconds.values()) - before
            self._seconds["bookkeeping"] += max(0.0, time.perf_counter() - start - taken)
            self._iterations += 1

    def take(self) -> dict[str, float]:
        """Returns each phase's mean microseconds per iteration since the last call, and starts anew."""
        scale = 1e6 / max(1, self._iterations)
        means = {name: seconds * scale for name, seconds in self._seconds.items()}
        self._start_anew()
        return means

    def write_trace(self, path: Path, rank: int) -> None:
        """Writes the events in the Trace Event Format, which Perfetto and Chrome open; a rank is a process there.

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
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"traceEvents": [named, *events], "displayTimeUnit": "ms"}))

    def _trace(self, phases: Sequence[str], marks: Sequence[float]) -> None:
        if self._traced and len(self._events) < _TRACED_EVENTS:
            thread = threading.get_ident()
            stretches = zip(itertools.cycle(phases), itertools.pairwise(marks))
            self._events += [(name, start, end, thread) for name, (start, end) in stretches]

    def _start_anew(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._iterations = 0


def resident_bytes() -> int:
    """Returns this process' resident memory (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def over_ranks(phases: list[dict[str, float]]) -> dict[str, float]:
    """Returns minimum, median and maximum over the ranks of each phase's microseconds per iteration."""
    summary = {}
    for name in PHASES:
        values = [own[name] for own in phases]
        for statistic, value in (("min", min(values)), ("median", median(values)), ("max", max(values))):
            summary[f"{name}_microseconds_{statistic}"] = value
    return summary
