"""Laws of what a rank prints."""

from __future__ import annotations

import io
import sys

import pytest

from hvd_dqn.run.progress import SILENCE_SECONDS, PlainDisplay, make_display


class _RecordingStream(io.StringIO):
    """A stream that knows its writes apart, as the pipe of an unbuffered process does."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str, /) -> int:
        self.writes.append(text)
        return super().write(text)


def test_a_line_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """With PYTHONUNBUFFERED a line in two writes reached mpirun --tag-output in two: the next tag ended the line."""
    stream = _RecordingStream()
    monkeypatch.setattr(sys, "stdout", stream)
    PlainDisplay(total_env_steps=10).message("two\nlines")
    assert stream.writes == ["two\nlines\n"]


@pytest.mark.parametrize("kind", ["off", "plain"])
def test_on_a_terminal_lines_pass_by_the_launcher(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's standard output is the terminal; this rank's is a pipe whose lines the launcher prefixes."""
    terminal = _RecordingStream()
    monkeypatch.setattr("hvd_dqn.run.progress.watched_terminal", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", pipe := _RecordingStream())
    make_display(kind, total_env_steps=10).message("a line")
    assert (terminal.writes, pipe.writes) == (["a line\n"], [])


def test_a_long_silence_ends_with_a_line_and_a_short_one_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clock is made up: called at each iteration, the line comes within 30 s, however rare the records are."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    display = PlainDisplay(total_env_steps=1_000_000)
    assert SILENCE_SECONDS <= 25.0
    for second in range(100):
        now = 1000.0 + second
        display.tick("env steps", 1000 + second, 1_000_000)
    assert capsys.readouterr().out.splitlines() == [f"env steps: {1000 + s:,} of 1,000,000" for s in (21, 42, 63, 84)]
