"""Laws of the heartbeat and of the container's health check that reads it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.run.heartbeat import VARIABLE, make_heartbeat

CHECK = Path(__file__).resolve().parents[2] / "launch" / "container" / "healthcheck"


def health(file: Path, limit: int = 300) -> tuple[int, str]:
    """Returns the health check's exit code and what it says."""
    own = os.environ | {VARIABLE: str(file), "HVD_DQN_HEARTBEAT_SECONDS": str(limit)}
    done = subprocess.run([CHECK], env=own, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_job_is_healthy_while_its_watchdog_is_told_of_progress(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    watchdog = Watchdog(0.0, 0, 1, tmp_path, lambda code: None, make_heartbeat(0, {VARIABLE: str(file)}))
    code, words = health(file)
    assert code == 1
    assert "no job has started here" in words
    watchdog.beat("learning")
    assert health(file) == (0, "last progress 0 s ago\n")


def test_a_job_without_progress_is_unhealthy(tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    file.touch()
    os.utime(file, (time.time() - 301, time.time() - 301))
    code, words = health(file)
    assert code == 1
    assert words.startswith("last progress 30")


@pytest.mark.parametrize(("local_rank", "variable"), [(1, VARIABLE), (0, "ANOTHER")])
def test_only_a_hosts_first_rank_touches_the_file_and_only_where_one_is_named(
    local_rank: int, variable: str, tmp_path: Path
) -> None:
    make_heartbeat(local_rank, {variable: str(tmp_path / "file")})()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_touched_disturbs_nobody(tmp_path: Path) -> None:
    make_heartbeat(0, {VARIABLE: str(tmp_path / "missing" / "heartbeat")})()
