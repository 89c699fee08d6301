"""Laws of what a rank prints."""

from __future__ import annotations

import io
import sys

import pytest

from hvd_dqn.run.progress import PlainDisplay


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
