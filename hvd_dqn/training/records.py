"""What a rank keeps for the log: metrics, display, statistics since the last line, the profile."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hvd_dqn.counters import Counters
from hvd_dqn.run.averages import LearnerAverages, RecentEpisodes, Speed
from hvd_dqn.run.metrics import MetricsWriter
from hvd_dqn.run.profile import IterationProfile
from hvd_dqn.run.progress import Display
from hvd_dqn.run.report import late_to_save
from hvd_dqn.training.recording import NullRecorder, Recorder, no_more_films

_LAUNCHERS_LEAVE_SECONDS = 1.0
_LONG_IN_A_ROW = 3
"""The first iterations are long because graphs are compiled."""


class Contribution(Protocol):
    """Adds fields of its own to each training record."""

    def local(self) -> dict[str, Any]:
        """Returns this rank's JSON-ready values, which are gathered with the others."""

    def summarize(self, parts: list[dict[str, Any]]) -> dict[str, float]:
        """Returns the record's fields from what was gathered of all ranks, equal on all ranks."""


class Listener(Protocol):
    """Receives rank 0's records, after they were written."""

    def take(self, record: dict[str, Any]) -> None:
        """Receives a record."""

    def close(self) -> None:
        """Finishes; there are no more records."""


@dataclass
class Records:
    """The records of one rank; `metrics` and `display` are null objects on every rank but 0."""

    rank: int
    metrics: MetricsWriter
    display: Display
    profile: IterationProfile
    trace: Path | None
    """Where this rank's trace is written in the end, None without --profile."""
    recent: RecentEpisodes = field(default_factory=RecentEpisodes)
    averages: LearnerAverages = field(default_factory=LearnerAverages)
    speed: Speed = field(default_factory=lambda: Speed(0, 0))
    started: float = field(default_factory=time.monotonic)
    contributions: list[Contribution] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    warned: bool = False
    """Whether metrics could not be written at some time."""
    under_launcher: bool = False
    recorder: Recorder = field(default_factory=NullRecorder)
    """Films the agent; a null object on every rank but 0."""
    long_iterations: int = 0
    """In a row, until they were warned about."""

    def write(self, kind: str, env_steps: int, record: dict[str, Any]) -> dict[str, Any]:
        """Writes a record with its kind, step and time, and returns it; what cannot be written is warned about once."""
        whole = {
            "kind": kind,
            "env_steps": env_steps,
            "unix_time": time.time(),
            "seconds": time.monotonic() - self.started,
            **record,
        }
        with self._metrics():
            self.metrics.write(whole)
        for listener in self.listeners:
            listener.take(whole)
        return whole

    def take_films(self) -> None:
        """Reports the films that were finished since the last call, and shows them in TensorBoard."""
        for film in self.recorder.finished():
            if film.problem:
                self.display.warn(no_more_films(film))
                continue
            self.display.message(
                f"film of env step {film.env_steps:,}: {film.path}, return {film.episode_return:,.2f} in "
                f"{film.steps:,} steps"
            )
            with self._metrics():
                self.metrics.write_gif("evaluation/film", film.env_steps, film.gif)

    @contextlib.contextmanager
    def _metrics(self) -> Iterator[None]:
        """Warns once where metrics cannot be written."""
        try:
            yield
        except OSError as error:
            if not self.warned:
                self.display.warn(f"metrics cannot be written: {error}; training continues without them")
            self.warned = True

    def warn_of_long_iterations(self) -> None:
        """Warns once that a launcher may kill the ranks before they have saved, which they do between iterations."""
        long = self.under_launcher and self.profile.last_seconds > _LAUNCHERS_LEAVE_SECONDS
        self.long_iterations = self.long_iterations + 1 if long else 0
        if self.long_iterations == _LONG_IN_A_ROW:
            self.display.warn(late_to_save(f"an iteration takes {self.profile.last_seconds:.1f} s"))
            self.long_iterations = -sys.maxsize

    def restart_speed(self, counters: Counters) -> None:
        """Measures the speed from here on."""
        self.speed = Speed(counters.env_steps, counters.learner_steps)

    @contextlib.contextmanager
    def pause_speed(self) -> Iterator[None]:
        """Leaves the time of a block out of the speed of training."""
        since = time.monotonic()
        try:
            yield
        finally:
            self.speed.leave_out(time.monotonic() - since)

    def close(self) -> None:
        """Writes this rank's trace and closes display and metrics; a full disk costs the trace, not the run."""
        self.recorder.close()
        if self.trace is not None:
            try:
                self.profile.write_trace(self.trace, self.rank)
            except OSError as error:
                print(f"hvd_dqn: rank {self.rank} could not write its trace: {error}", file=sys.stderr, flush=True)
            self.display.message(f"traces for https://ui.perfetto.dev: {self.trace.parent}")
        self.display.close()
        self.metrics.close()
        for listener in self.listeners:
            listener.close()
