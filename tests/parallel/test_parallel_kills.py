"""kill -9 of a random rank at a random moment, again and again: the run ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forms import FULL
from launching import GENERAL, LEARNERS, Launch, launched, newest_checkpoint, read_metrics, timeless_metrics
from persistent_ranks import PersistentRanks

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

KILLS = int(os.environ.get("HVD_DQN_KILLS", "50" if FULL else "4"))
TOTAL = 100_000 if FULL else 16_000
SEED = int(os.environ.get("HVD_DQN_KILL_SEED", "20"))
SHORT = (
    *("--train-period", "4", "--evaluation-period", "2000", "--learning-starts", "500"),
    *("--replay-capacity", "5000", "--checkpoint-period", "500", *GENERAL),
)
"""For a few kills."""
LONG = ("--checkpoint-period", "2000", *LEARNERS["native"])
"""For fifty: the default settings solve CartPole."""
OFTEN = ("--log-period", "100", "--keep-checkpoints", "3", "--name", "run", "--final-evaluation-episodes", "100")


def _unreadable(run_directory: Path) -> list[str]:
    """Returns every file that a manifest names and that is not as it says; without the code under test."""
    checkpoints = run_directory / "checkpoints"
    found = []
    for path in checkpoints.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        named = {path.parent / name: facts for name, facts in manifest["files"].items()}
        named |= {checkpoints / "replay" / name: facts for name, facts in manifest["segments"].items()}
        for file, facts in named.items():
            if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != facts["sha256"]:
                found.append(f"{path.parent.name}: {file.name}")
    return found


def _end(run_directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what the last manifest says of the files (weights, optimizer, counters, replay), and all metrics."""
    manifest = json.loads((newest_checkpoint(run_directory) / "manifest.json").read_text())
    return manifest["files"], timeless_metrics(run_directory)


def _env_steps(run_directory: Path) -> int:
    """Returns how far the metrics say the run is; the last line may be half written."""
    try:
        return json.loads((run_directory / "metrics.jsonl").read_text().splitlines()[-1])["env_steps"]
    except (OSError, IndexError, ValueError):
        return 0


def _wait_for_a_moment(job: Launch, run_directory: Path, rng: random.Random, kills_left: int) -> str:
    """Waits for a random moment and returns it in words: of the start in one of five cases, else of the training.

    Near the end of the run only moments of the start are left, so that few of the kills come too late.
    """
    left = TOTAL - _env_steps(run_directory)
    ending = left < TOTAL // 7
    if rng.random() < 0.2 or ending:
        seconds = rng.uniform(0.5, 1.5 if ending else 3.0)  # a short rest may be done 2 s after the start
        time.sleep(seconds)
        _wait_while(job, lambda: len(job.python_processes()) < 2)
        return f"{seconds:.2f} s after the start"
    _wait_while(
        job,
        lambda: (
            not ("resumed from" in job.output or "starts from the beginning" in job.output or _env_steps(run_directory))
        ),
    )
    farthest = min(2 * left // (kills_left + 1), left - TOTAL // 7)
    more, seconds = rng.randrange(farthest + 1), rng.uniform(0.0, 0.3)
    since = _env_steps(run_directory)
    _wait_while(job, lambda: _env_steps(run_directory) < since + more)
    time.sleep(seconds)
    return f"{seconds:.2f} s after env step {since + more:,}"


def _wait_while(job: Launch, holds: Callable[[], object]) -> None:
    """Waits until something no longer holds, or the job is over."""
    deadline = time.monotonic() + 600.0
    while holds() and job.process.poll() is None:
        assert time.monotonic() < deadline, job.output
        time.sleep(0.01)


def _kill(job: Launch, rank: int) -> bool:
    """Kills a rank; returns False if the run was over before."""
    with contextlib.suppress(ProcessLookupError):
        for pid, own in job.python_processes().items():
            if own == rank:
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def test_a_run_killed_again_and_again_ends_bit_for_bit_where_it_would_have_ended(
    persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """The same weights, optimizer, replay and metrics, so the same final return; no checkpoint is ever unreadable."""
    options = (*(LONG if FULL else SHORT), *OFTEN, "--total-env-steps", str(TOTAL))
    rng = random.Random(SEED)
    print(f"HVD_DQN_KILL_SEED={SEED}")
    persistent_ranks.run_well(2, *options, "--runs-dir", tmp_path / "whole")
    (whole,) = (tmp_path / "whole").glob("*/run")
    run_directory = tmp_path / "killed" / "CartPole-v1" / "run"
    done, starts, outcome = 0, 0, None
    while outcome is None or outcome.code != 0:
        resume = ("--resume", run_directory) if (run_directory / "config.json").exists() else ()
        with launched("mpirun", 2, *options, "--runs-dir", tmp_path / "killed", *resume) as job:
            if done < KILLS:
                moment, rank = _wait_for_a_moment(job, run_directory, rng, KILLS - done), rng.randrange(2)
                if _kill(job, rank):
                    done += 1
                    print(f"kill {done}: rank {rank}, {moment}; env step {_env_steps(run_directory):,}")
                    injected("rank killed by SIGKILL at a random moment")
            outcome = job.finish()
        starts += 1
        assert outcome.code == 0 or starts <= KILLS, outcome.output
        assert "cannot be used" not in outcome.output, outcome.output
        assert _unreadable(run_directory) == []
    assert done >= KILLS // 2, "the run was over before it was killed often enough"
    assert _end(run_directory) == _end(whole)
    final = read_metrics(run_directory, "final_evaluation")[-1]["mean_return"]
    print(f"final return {final:.1f} after {done} kills, the same as without")
    if FULL:
        assert final >= 475
    assert not list(run_directory.rglob("*.tmp"))
