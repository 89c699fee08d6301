"""Rank 0's progress display: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from hvd_dqn.run.terminal import watched_terminal

PLAIN_PERIOD_SECONDS = 2.0
"""Minimum time between two plain lines, so that a fast run does not flood a log file."""


class Display(Protocol):
    """Shows the progress of the job."""

    def update(self, record: dict[str, Any]) -> None:
        """Shows a training record."""

    def message(self, text: str) -> None:
        """Prints a line."""

    def warn(self, text: str) -> None:
        """Prints a warning, also with --progress off."""

    def close(self) -> None:
        """Ends the display and restores the terminal."""


class NullDisplay:
    """The null object of all ranks except 0."""

    def update(self, record: dict[str, Any]) -> None:
        """Shows nothing."""

    def message(self, text: str) -> None:
        """Prints nothing."""

    def warn(self, text: str) -> None:
        """Prints nothing."""

    def close(self) -> None:
        """Does nothing."""


class QuietDisplay(NullDisplay):
    """The display of --progress off."""

    def warn(self, text: str) -> None:
        """Prints a line to standard error."""
        print(text, file=sys.stderr, flush=True)


class PlainDisplay:
    """Prints one line per log period, at most one every PLAIN_PERIOD_SECONDS."""

    def __init__(self, total_env_steps: int) -> None:
        """Starts the clock."""
        self._total = total_env_steps
        self._eta = _Eta(total_env_steps)
        self._next = 0.0

    def update(self, record: dict[str, Any]) -> None:
        """Prints a line, unless the last one is recent. The last record of a run is always printed."""
        remaining = self._eta.seconds(record["env_steps"])
        last = record["env_steps"] >= self._total
        if time.monotonic() < self._next and not last:
            return
        self._next = time.monotonic() + PLAIN_PERIOD_SECONDS
        share = 100.0 * record["env_steps"] / self._total
        self.message(
            f"{record['env_steps']:,}/{self._total:,} env steps ({share:.0f} %), ETA {_duration(remaining)}, "
            + _numbers(record)
        )

    def message(self, text: str) -> None:
        """Prints a line in a single write, since launchers prefix each write with the rank."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def warn(self, text: str) -> None:
        """Prints a line."""
        self.message(text)

    def close(self) -> None:
        """Does nothing."""


class LiveDisplay:
    """A progress bar with the current numbers below it."""

    def __init__(self, total_env_steps: int, stream: TextIO) -> None:
        """Starts the live display at the bottom of a terminal."""
        self._bar = Progress(
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TextColumn("{task.completed:,}/{task.total:,} env steps, ETA"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("training", total=total_env_steps)
        self._live = Live(self._bar, console=Console(file=stream, force_terminal=True), refresh_per_second=4)
        self._live.start()

    def update(self, record: dict[str, Any]) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=record["env_steps"])
        self._live.update(Group(self._bar, Text(_numbers(record))))

    def message(self, text: str) -> None:
        """Prints a line above the bar."""
        self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints a line above the bar."""
        self.message(text)

    def close(self) -> None:
        """Stops the live display and leaves its last state on the screen."""
        self._live.stop()


def make_display(kind: str, total_env_steps: int) -> Display:
    """Chooses rank 0's display.

    Args:
      kind: "auto", "live", "plain" or "off".
      total_env_steps: the length of the bar.
    """
    if kind == "off":
        return QuietDisplay()
    terminal = watched_terminal() if kind in ("auto", "live") else None
    if kind == "live" and terminal is None:
        terminal = sys.stdout
    return LiveDisplay(total_env_steps, terminal) if terminal else PlainDisplay(total_env_steps)


class _Eta:
    """Remaining seconds at the mean speed since the start."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._since = time.monotonic()
        self._first: int | None = None

    def seconds(self, done: int) -> float | None:
        if self._first is None:
            self._first, self._since = done, time.monotonic()
            return None
        speed = (done - self._first) / max(time.monotonic() - self._since, 1e-9)
        return (self._total - done) / speed if speed > 0 else None


def _numbers(record: dict[str, Any]) -> str:
    return (
        f"{record['env_steps_per_second']:,.0f} env steps/s, {record['learner_steps_per_second']:,.0f} learner "
        f"steps/s, return {_number(record['mean_return'])}, epsilon {record['epsilon']:.3f}, "
        f"loss {_number(record['loss'])}, mean Q {_number(record['mean_q'])}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
