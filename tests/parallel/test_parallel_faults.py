"""What goes wrong with the disk while a job runs costs checkpoints, never the run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forms import only_in_full
from launching import GENERAL, Launch, launched, newest_checkpoint
from persistent_ranks import PersistentRanks

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

LONG = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--train-period", "4", "--evaluation-period", "0"),
    *("--checkpoint-period", "2000", "--log-period", "2000", "--replay-capacity", "3000", "--name", "long", *GENERAL),
)
FAILED = "could not be written"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yields a file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"only root may mount a file system: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _newest(run_directory: Path) -> Path | None:
    with contextlib.suppress(ValueError):
        return newest_checkpoint(run_directory)
    return None


def _fill(ballast: Path) -> None:
    """Takes all the room that is left on a disk."""
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def _end_and_resume(job: Launch, run_directory: Path, persistent_ranks: PersistentRanks) -> None:
    """Stops the job, which saves, and goes on for a while."""
    os.kill(job.rank_pid(0), signal.SIGUSR1)
    outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert "Traceback" not in outcome.output
    end = str(int(newest_checkpoint(run_directory).name) + 2000)
    resumed = persistent_ranks.run_well(2, "--resume", run_directory, "--total-env-steps", end)
    assert "cannot be used" not in resumed.output


def test_a_full_disk_costs_checkpoints_until_there_is_room_again(
    small_disk: Path, persistent_ranks: PersistentRanks, injected: Any
) -> None:
    run_directory, ballast = small_disk / "CartPole-v1" / "long", small_disk / "ballast"
    with launched("mpirun", 2, *LONG, "--runs-dir", small_disk) as job:
        job.wait_until(lambda: _newest(run_directory) is not None)
        injected("full disk")

        def has_failed_thrice_on_the_full_disk() -> bool:
            _fill(ballast)  # again and again: a checkpoint that was under way removes an older one, and makes room
            return job.output.count(FAILED) >= 3

        job.wait_until(has_failed_thrice_on_the_full_disk)
        assert "No space left on device" in job.output
        full = _newest(run_directory)
        assert full is not None, "a checkpoint that fails costs no earlier one"
        ballast.unlink()
        job.wait_until(lambda: _newest(run_directory) != full)
        _end_and_resume(job, run_directory, persistent_ranks)


def test_a_checkpoint_that_fails_is_reported_long_before_the_next(tmp_path: Path, injected: Any) -> None:
    """A file lies where rank 1's folder will be; the first of two checkpoints 20,000 steps apart is told of at once."""
    run_directory = tmp_path / "hostile_envs-FileInTheWay-v0" / "long"
    file = run_directory / "checkpoints" / "replay" / "rank-00001-of-00002"
    environment = ("--env", "hostile_envs:FileInTheWay-v0", "--env-kwargs", json.dumps({"path": str(file)}))
    with launched("mpirun", 2, *LONG, *environment, "--checkpoint-period", "20000", "--runs-dir", tmp_path) as job:
        injected("folder that cannot be written")
        job.wait_for(FAILED)
        output = job.output
    told = output.index("the checkpoint at env step 20,000 could not be written: rank 1")
    assert "40,000/" not in output[:told], "the line of progress that comes before the next checkpoint"
    assert output.count(FAILED) == 1


@pytest.mark.parametrize("rank", [pytest.param(0, marks=only_in_full), 1])
def test_a_rank_that_cannot_write_its_replay_costs_checkpoints_and_is_named(
    tmp_path: Path, rank: int, persistent_ranks: PersistentRanks, injected: Any
) -> None:
    """A file lies where the rank's folder should be; the other rank's part is there, and no manifest is."""
    run_directory = tmp_path / "CartPole-v1" / "long"
    own = run_directory / "checkpoints" / "replay" / f"rank-{rank:05d}-of-00002"
    with launched("mpirun", 2, *LONG, "--runs-dir", tmp_path) as job:
        job.wait_until(lambda: _newest(run_directory) is not None)
        injected("folder that cannot be written")
        aside = _replace_by_a_file(own, tmp_path)
        job.wait_for(FAILED)
        stuck = _newest(run_directory)
        job.wait_until(lambda: job.output.count(FAILED) >= 3)
        assert f"rank {rank}" in job.output.split(FAILED)[1].splitlines()[0]
        assert _newest(run_directory) == stuck
        own.unlink()
        own.mkdir()
        for segment in (segment for folder in aside for segment in folder.iterdir()):
            if not (own / segment.name).exists():
                segment.rename(own / segment.name)
        job.wait_until(lambda: _newest(run_directory) != stuck)
        _end_and_resume(job, run_directory, persistent_ranks)


def _replace_by_a_file(folder: Path, elsewhere: Path) -> list[Path]:
    """Puts a file in a folder's place; returns where the folder is now, and those that a checkpoint made meanwhile."""
    aside: list[Path] = []
    while not folder.is_file():
        aside.append(elsewhere / f"aside-{len(aside)}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside[-1])
        with contextlib.suppress(OSError):
            folder.touch(exist_ok=False)
    return [path for path in aside if path.exists()]
