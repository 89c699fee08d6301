"""What goes wrong with the disk while a job runs costs checkpoints, never the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import Launch, launched, newest_checkpoint, read_metrics, run_well

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

LONG = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--train-period", "4", "--evaluation-period", "0"),
    *("--checkpoint-period", "2000", "--log-period", "2000", "--replay-capacity", "3000", "--name", "long"),
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


def _end_and_resume(job: Launch, run_directory: Path) -> None:
    """Stops the job, which saves, and goes on for a while."""
    os.kill(job.rank_pid(0), signal.SIGUSR1)
    outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert "Traceback" not in outcome.output
    end = str(int(newest_checkpoint(run_directory).name) + 2000)
    resumed = run_well("mpirun", 2, "--resume", run_directory, "--total-env-steps", end)
    assert "cannot be used" not in resumed.output


def test_a_full_disk_costs_checkpoints_until_there_is_room_again(small_disk: Path, injected: Any) -> None:
    run_directory, ballast = small_disk / "CartPole-v1" / "long", small_disk / "ballast"
    with launched("mpirun", 2, *LONG, "--runs-dir", small_disk) as job:
        job.wait_until(lambda: _newest(run_directory) is not None)
        injected("full disk")
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        good = _newest(run_directory)
        before = job.output.count(FAILED)
        job.wait_for(FAILED)
        job.wait_until(lambda: job.output.count(FAILED) >= before + 3)
        assert "No space left on device" in job.output
        assert good is not None
        assert (good / "manifest.json").exists() or _newest(run_directory) != good
        ballast.unlink()
        full = _newest(run_directory)
        job.wait_until(lambda: _newest(run_directory) != full)
        _end_and_resume(job, run_directory)


def test_a_checkpoint_that_fails_is_reported_long_before_the_next(tmp_path: Path, injected: Any) -> None:
    """A file lies where rank 1's folder will be; the first of two checkpoints 20,000 steps apart is told of at once."""
    run_directory = tmp_path / "CartPole-v1" / "long"
    with launched("mpirun", 2, *LONG, "--checkpoint-period", "20000", "--runs-dir", tmp_path) as job:
        job.wait_until(run_directory.is_dir)
        injected("folder that cannot be written")
        (run_directory / "checkpoints" / "replay").mkdir(parents=True)
        (run_directory / "checkpoints" / "replay" / "rank-00001-of-00002").touch()
        job.wait_for(FAILED)
        assert "the checkpoint at env step 20,000 could not be written: rank 1" in job.output
        assert read_metrics(run_directory, "training")[-1]["env_steps"] < 30_000
        assert job.output.count(FAILED) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_write_its_replay_costs_checkpoints_and_is_named(
    tmp_path: Path, rank: int, injected: Any
) -> None:
    """A file lies where the rank's folder should be; the other rank's part is there, and no manifest is."""
    run_directory = tmp_path / "CartPole-v1" / "long"
    own = run_directory / "checkpoints" / "replay" / f"rank-{rank:05d}-of-00002"
    aside = tmp_path / "aside"
    with launched("mpirun", 2, *LONG, "--runs-dir", tmp_path) as job:
        job.wait_until(lambda: _newest(run_directory) is not None)
        injected("folder that cannot be written")
        while not own.is_file():  # a checkpoint may be under way and make the folder again
            with contextlib.suppress(OSError):
                own.rename(aside)
            with contextlib.suppress(OSError):
                own.touch(exist_ok=False)
        job.wait_for(FAILED)
        stuck = _newest(run_directory)
        job.wait_until(lambda: job.output.count(FAILED) >= 3)
        assert f"rank {rank}" in job.output.split(FAILED)[1].splitlines()[0]
        assert _newest(run_directory) == stuck
        own.unlink()
        own.mkdir()
        for segment in aside.iterdir():
            if not (own / segment.name).exists():
                segment.rename(own / segment.name)
        job.wait_until(lambda: _newest(run_directory) != stuck)
        _end_and_resume(job, run_directory)
