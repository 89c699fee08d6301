"""The curve goes on: CartPole is solved though ranks are killed while it is learned, rank 0 among them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
import runs
from launching import ROOT, Launch, environment_of_ranks, read_metrics

pytestmark = pytest.mark.learning

KILLS = {4_000: 0, 16_000: 1, 30_000: 0}
"""Env steps after which one of two ranks is killed, and which: the older process is rank 0."""


def _trained_to(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(read_metrics(folder / "CartPole-v1" / "run", "training")[-1]["env_steps"])
    return 0


def test_cartpole_is_solved_though_ranks_are_lost(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("localhost:1\n127.0.0.1:1\n")
    job = ["--preset", "cartpole", "--seed", "0"]
    elastic = [str(ROOT / "launch" / "elastic.sh"), "--hosts", str(tmp_path / "hosts")]
    waits = ["--blacklist-cooldown-range", "2", "4"]
    command = [*elastic, *waits, "--", *job, "--runs-dir", str(tmp_path), "--name", "run"]
    launch = Launch(command, environment_of_ranks())
    try:
        for met, (env_steps, victim) in enumerate(KILLS.items()):
            launch.wait_until(lambda met=met: launch.output.count("changed: 2 now") >= met, 120.0)  # type: ignore[misc]
            launch.wait_until(lambda least=env_steps: _trained_to(tmp_path) >= least, 600.0)  # type: ignore[misc]
            os.kill(launch.rank_pid(0) if met == 0 else sorted(launch.python_processes())[victim], signal.SIGKILL)
        outcome = launch.finish(1200.0)
    finally:
        launch.end()
    assert outcome.code == 0, outcome.output
    records = read_metrics(tmp_path / "CartPole-v1" / "run")
    changes = [record for record in records if record["kind"] == "ranks" and record["left"] + record["came"] > 0]
    assert [change["ranks"] for change in changes] == [1, 2] * len(KILLS)
    final = records[-1]
    shown = f"launch/elastic.sh -np 2 -- {' '.join(job)}, {len(KILLS)} ranks killed"
    runs.RESULTS.append(runs.Result(shown, final["mean_return"], final["low"], final["high"], final["seconds"]))
    assert final["mean_return"] >= 475
