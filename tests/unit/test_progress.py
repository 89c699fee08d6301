"""Laws of what a rank prints."""

from __future__ import annotations

import functools
import io
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hvd_dqn.run.progress import SILENCE_SECONDS, PlainDisplay, make_display

from .whole_runs import QUICK, run


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


def _on_a_screen(written: str) -> list[str]:
    """Returns the lines that a screen shows on which a carriage return goes back to the start of the line."""
    lines = []
    for line in written.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_in_a_notebook_one_line_is_overwritten_and_messages_stand_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", cast(Any, SimpleNamespace(get_ipython=lambda: kernel)))
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    display = make_display("auto", total_env_steps=10_000)
    assert isinstance(make_display("plain", total_env_steps=10), PlainDisplay)
    record = {"learner_steps_per_second": 1.0, "mean_return": 2.0, "epsilon": 0.5, "loss": 1.0, "mean_q": 0.1}
    display.message("head")
    for env_steps, speed in ((1_000, 123_456.0), (2_000, 9.0)):
        display.update(record | {"env_steps": env_steps, "env_steps_per_second": speed})
    display.message("an evaluation")
    display.warn("a warning")
    display.update(record | {"env_steps": 10_000, "env_steps_per_second": 7.0})
    display.close()
    display.close()
    display.message("tail")
    head, evaluation, warning, last, tail, end = _on_a_screen(stream.getvalue())
    assert (head, evaluation, warning, tail, end) == ("head", "an evaluation", "a warning", "tail", "")
    assert last.startswith("10,000/10,000 env steps (100 %), ETA 0:00:00, 7 env steps/s, ")


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


def test_a_job_ends_a_long_silence_in_training_and_in_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is made up: each look at it is 25 s after the one before, so every tick shows a line."""
    clock = SimpleNamespace(monotonic=functools.partial(next, itertools.count(0, 25)))
    monkeypatch.setattr("hvd_dqn.run.progress.time", clock)
    seldom = ("--log-period", "1000", "--evaluation-period", "60", "--evaluation-episodes", "2")
    ended = run(*QUICK, *seldom, "--total-env-steps", "60", "--runs-dir", tmp_path)
    assert ended.code == 0, ended.printed
    shown = [line for line in ended.stdout.splitlines() if " of " in line and line.startswith(("env", "evaluation e"))]
    evaluations = [f"evaluation episodes: {episodes} of {episodes}" for episodes in (2, 1)]
    assert shown == [*(f"env steps: {n} of 60" for n in range(2, 61, 2)), *evaluations]


def test_without_progress_the_head_the_result_and_the_run_directory_are_shown(tmp_path: Path) -> None:
    often = ("--evaluation-period", "50", "--evaluation-episodes", "1")
    place = ("--runs-dir", tmp_path, "--name", "a")
    ended = run(*QUICK, *often, *place, "--total-env-steps", "100", "--progress", "off")
    assert ended.code == 0, ended.printed
    directory = tmp_path / "CartPole-v1" / "a"
    lines = ended.stdout.splitlines()
    assert lines[0] == f"hvd_dqn on CartPole-v1, run directory {directory}"
    assert any(line.startswith("  replay capacity ") for line in lines)
    assert any(line.startswith("Greedy evaluation of the best checkpoint") for line in lines)
    assert f"Run directory: {directory}" in lines
    assert "env steps/s" not in ended.printed
