"""Laws of the time limit: Slurm's forms of a time, and what an allocation has left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hvd_dqn.errors import UserError
from hvd_dqn.run.time_limit import parse_time, seconds_left


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 5_400),
        ("2:30", 150),
        ("59:59", 3_599),
        ("1:02:03", 3_723),
        ("100:00:00", 360_000),
        ("2-0", 172_800),
        ("1-2:30", 95_400),
        ("1-02:03:04", 93_784),
    ],
)
def test_times_are_slurms(text: str, seconds: int) -> None:
    """The forms of sbatch --time (its manual page, "Acceptable time formats")."""
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-5", "1:2:3:4", "1-", "1h", "1:222", " 5", "1.5", "slurm "])
def test_anything_else_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(UserError, match="give minutes, H:M:S or D-H:M:S"):
        parse_time(text)


def test_a_limit_counts_from_the_start_of_the_process() -> None:
    assert seconds_left("", 5.0) is None
    assert seconds_left("1:00", 50.0) == 10.0
    assert seconds_left("1:00", 80.0) == -20.0


def test_a_slurm_job_knows_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 100))
    left = seconds_left("slurm", 1e9)
    assert left is not None
    assert 95 < left <= 100


@pytest.mark.parametrize(("answer", "left"), [("1:02", 62.0), ("1-00:00:01", 86_401.0), ("UNLIMITED", None)])
def test_an_older_slurm_is_asked(
    answer: str, left: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a squeue that answers as the real one does to --format %L."""
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\n[ "$*" = "--noheader --jobs 7 --format %L" ] && echo "  {answer}"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert seconds_left("slurm", 0.0) == left


def test_a_task_of_an_array_asks_for_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One of the tasks has the array's own number, under which squeue lists all of them."""
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$3" = 7_2 ] && echo 1:02 || printf "1:02\\n1:05\\n"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name, value in {"JOB_ID": "7", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert seconds_left("slurm", 0.0) == 62.0


def test_what_slurm_does_not_tell_is_asked_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="no Slurm job"):
        seconds_left("slurm", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"squeue does not report the time left.*give a time instead"):
        seconds_left("slurm", 0.0)
