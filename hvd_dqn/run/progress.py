"""Rank 0's progress display: live on a terminal, one line in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from hvd_dqn.run.terminal import LastingStream, watched_terminal

PLAIN_PERIOD_SECONDS = 2.0
"""Minimum time between two plain lines, so that a fast run does not flood a log file."""
SILENCE_SECONDS = 20.0
"""Time without a line after which `tick` shows one. An iteration of several seconds still leaves a line every 30 s."""


class Display(Protocol):
    """Shows the progress of the job."""

    def update(self, record: dict[str, Any]) -> None:
        """Shows a training record."""

    def tick(self, doing: str, done: int, total: int) -> None:
        """Says how far something is, if nothing has been shown for a while. Cheap; called at every iteration."""

    def message(self, text: str) -> None:
        """Prints a line."""

    def warn(self, text: str) -> None:
        """Prints a warning."""

    def close(self) -> None:
        """Ends the display and restores the terminal."""


class NullDisplay:
    """The null object of all ranks except 0."""

    def update(self, record: dict[str, Any]) -> None:
        """Shows nothing."""

    def tick(self, doing: str, done: int, total: int) -> None:
        """Shows nothing."""

    def message(self, text: str) -> None:
        """Prints nothing."""

    def warn(self, text: str) -> None:
        """Prints nothing."""

    def close(self) -> None:
        """Does nothing."""


class QuietDisplay(NullDisplay):
    """The display of --progress off: messages and warnings, such as the start report and the closing summary."""

    def __init__(self, stream: Any = None) -> None:
        """Takes the stream of the messages; None for standard output, as it is now.

        An environment may replace the standard streams.
        """
        self._stream, self._errors = stream or sys.stdout, sys.stderr

    def message(self, text: str) -> None:
        """Prints a line in a single write, since launchers prefix each write with the rank."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def warn(self, text: str) -> None:
        """Prints a line to standard error."""
        print(text, file=self._errors, flush=True)


class PlainDisplay(QuietDisplay):
    """Prints one line per log period, at most one every PLAIN_PERIOD_SECONDS."""

    def __init__(self, total_env_steps: int, stream: Any = None) -> None:
        """Starts the clock."""
        super().__init__(stream)
        self._total = total_env_steps
        self._eta = _Eta(total_env_steps)
        self._next = 0.0
        self._silence = _Silence()

    def update(self, record: dict[str, Any]) -> None:
        """Prints a line, unless the last one is recent. The last record of a run is always printed."""
        remaining = self._eta.seconds(record["env_steps"])
        last = record["env_steps"] >= self._total
        if time.monotonic() < self._next and not last:
            return
        self._next = time.monotonic() + PLAIN_PERIOD_SECONDS
        self.message(_line(record, self._total, remaining))

    def tick(self, doing: str, done: int, total: int) -> None:
        """Prints a line after a long silence."""
        if self._silence.is_long():
            self.message(f"{doing}: {done:,} of {total:,}")

    def message(self, text: str) -> None:
        """Prints a line."""
        self._silence.end()
        super().message(text)

    def warn(self, text: str) -> None:
        """Prints a line."""
        self.message(text)


class NotebookDisplay(QuietDisplay):
    """One line that each record overwrites; a notebook follows a carriage return as terminals do."""

    def __init__(self, total_env_steps: int, stream: Any = None) -> None:
        """Starts the clock."""
        super().__init__(stream)
        self._total = total_env_steps
        self._eta = _Eta(total_env_steps)
        self._silence = _Silence()
        self._shown = ""

    def update(self, record: dict[str, Any]) -> None:
        """Shows a record in the place of the one before."""
        self._show(_line(record, self._total, self._eta.seconds(record["env_steps"])))

    def tick(self, doing: str, done: int, total: int) -> None:
        """Shows the progress in the place of the record after a long silence."""
        if self._silence.is_long():
            self._show(f"{doing}: {done:,} of {total:,}")

    def message(self, text: str) -> None:
        """Prints a line above the one that is overwritten."""
        shown = self._shown
        self._write("")
        super().message(text)
        self._write(shown)

    def warn(self, text: str) -> None:
        """Prints a line there, too."""
        self.message(text)

    def close(self) -> None:
        """Leaves the last line."""
        if self._shown:
            shown, self._shown = self._shown, ""
            super().message(f"\r{shown}")

    def _show(self, line: str) -> None:
        self._silence.end()
        self._write(line)

    def _write(self, line: str) -> None:
        """Writes over the line that is shown, which may be longer."""
        blank = " " * len(self._shown)
        self._stream.write(f"\r{blank}\r{line}" if self._shown else line)
        self._stream.flush()
        self._shown = line


class LiveDisplay:
    """A progress bar with the current numbers below it."""

    def __init__(self, total_env_steps: int, stream: Any) -> None:
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
        self._silence = _Silence()

    def update(self, record: dict[str, Any]) -> None:
        """Moves the bar."""
        self._silence.end()
        self._bar.update(self._task, completed=record["env_steps"])
        self._live.update(Group(self._bar, Text(_numbers(record))))

    def tick(self, doing: str, done: int, total: int) -> None:
        """Shows the progress below the bar after a long silence."""
        if self._silence.is_long():
            self._silence.end()
            self._live.update(Group(self._bar, Text(f"{doing}: {done:,} of {total:,}")))

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
    """Chooses rank 0's display. On a terminal it writes there itself, past the launcher, which prefixes each line.

    Args:
      kind: "auto", "live", "plain" or "off".
      total_env_steps: the length of the bar.
    """
    terminal = watched_terminal()
    if kind == "live" and terminal is None:
        terminal = sys.stdout
    shown = terminal or sys.stdout
    if isinstance(shown, LastingStream):
        shown.report_to = sys.stderr  # the live display puts another stream in its place
    if kind == "off":
        return QuietDisplay(terminal)
    if kind != "plain" and _in_a_notebook():
        return NotebookDisplay(total_env_steps)
    if kind == "plain" or terminal is None:
        return PlainDisplay(total_env_steps, terminal)
    return LiveDisplay(total_env_steps, terminal)


class _Silence:
    """The time since something was shown."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def is_long(self) -> bool:
        return time.monotonic() - self._since > SILENCE_SECONDS

    def end(self) -> None:
        self._since = time.monotonic()


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


def _in_a_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook. IPython is loaded there, and need not be elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _line(record: dict[str, Any], total: int, remaining: float | None) -> str:
    """Returns a record in one line.

    Args:
      record: of training.
      total: env steps of the run.
      remaining: seconds to its end, None before they are known.
    """
    share = 100.0 * record["env_steps"] / total
    return (
        f"{record['env_steps']:,}/{total:,} env steps ({share:.0f} %), ETA {_duration(remaining)}, {_numbers(record)}"
    )


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
