"""The curve goes on: CartPole is solved though ranks are killed while it is learned, rank 0 among them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from launching import MARK, ROOT, Launch, environment_of_ranks, read_metrics

from . import runs

pytestmark = pytest.mark.learning

FIRST_KILL, APART = 4_000, 1_000
"""Env steps before a rank is killed: since the start, since the ranks met again."""


def _trained_to(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(read_metrics(folder / "CartPole-v1" / "run", "training")[-1]["env_steps"])
    return 0


def test_cartpole_is_solved_though_both_ranks_are_lost_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("localhost:1\n127.0.0.1:1\n")
    job = ["--preset", "cartpole", "--seed", "0"]
    elastic = [str(ROOT / "launch" / "elastic.sh"), "--hosts", str(tmp_path / "hosts"), "-x", MARK]
    waits = ["--blacklist-cooldown-range", "1", "2"]
    command = [*elastic, *waits, "--", *job, "--runs-dir", str(tmp_path), "--name", "run"]
    launch = Launch(command, environment_of_ranks())
    try:
        launch.wait_until(lambda: _trained_to(tmp_path) >= FIRST_KILL, 600.0)
        second = launch.rank_pid(1)
        os.kill(launch.rank_pid(0), signal.SIGKILL)
        launch.wait_for("the ranks have changed: 2 now, 1 before", 120.0)
        met = _trained_to(tmp_path)
        launch.wait_until(lambda: _trained_to(tmp_path) >= met + APART, 600.0)
        os.kill(second, signal.SIGKILL)
        outcome = launch.finish(1200.0)
    finally:
        launch.end()
    assert outcome.code == 0, outcome.output
    records = read_metrics(tmp_path / "CartPole-v1" / "run")
    changes = [record for record in records if record["kind"] == "ranks" and record["left"] + record["came"] > 0]
    assert [change["ranks"] for change in changes][:3] == [1, 2, 1]
    final = records[-1]
    shown = f"launch/elastic.sh -np 2 -- {' '.join(job)}, both ranks killed"
    runs.RESULTS.append(runs.Result(shown, final["mean_return"], final["low"], final["high"], final["seconds"]))
    assert final["mean_return"] >= 475
