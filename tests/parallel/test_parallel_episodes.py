"""Ranks whose episodes end at different times stay together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launching import GENERAL, newest_checkpoint, read_metrics
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

ITERATIONS = 3000
LENGTHS = (1, 7, 300)  # of ranks 0 to 2; rank 3 never ends an episode (programs/hostile_envs.py)


def test_ranks_whose_episodes_end_at_different_times_never_deadlock(
    persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Four ranks with episodes of 1, 7, 300 and endless steps go through thousands of iterations together.

    Epsilon falls with each finished episode, so the episodes' count, too, must be the same on all ranks: if it
    were not, nothing would hang, but the count below would be wrong.
    """
    arguments = (
        *("--env", "hostile_envs:UnequalEpisodes-v0", "--num-envs", 4, "--total-env-steps", 4 * ITERATIONS),
        *("--train-period", 8, "--learning-starts", 400, "--target-update-period", 50, "--hidden-sizes", 8),
        *("--global-batch-size", 16, "--replay-capacity", 2000, "--log-period", 1000, "--checkpoint-period", 4000),
        *("--evaluation-period", 0, "--final-evaluation-episodes", 1, "--epsilon-schedule", "per-episode"),
        *("--runs-dir", tmp_path, "--name", "unequal"),
        *GENERAL,
    )
    persistent_ranks.run_well(4, *map(str, arguments))
    (run_directory,) = tmp_path.glob("*/unequal")
    state = json.loads((newest_checkpoint(run_directory) / "state.json").read_text())
    counters = state["counters"]
    assert counters["env_steps"] == 4 * ITERATIONS
    assert counters["learner_steps"] == (4 * ITERATIONS - 400) // 8
    # An episode of n steps takes n + 1 iterations: the last one resets.
    assert counters["episodes"] == sum((ITERATIONS + 1) // (length + 1) for length in LENGTHS)
    assert set(state["recent_episodes"]["lengths"]) <= set(LENGTHS)
    assert len(read_metrics(run_directory, "training")) == 12
