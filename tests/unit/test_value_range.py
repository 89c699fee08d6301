"""Laws of the range of returns that were seen, and of the warning where an algorithm cannot represent them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.envs.return_range import ReturnRange
from hvd_dqn.training.value_range import ValueRange

from .whole_runs import QUICK, run

GAMMA = 0.9
EPISODES = st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=8), min_size=1, max_size=5)


@given(EPISODES)
def test_the_range_is_that_of_the_returns_from_every_step(episodes: list[list[float]]) -> None:
    seen = ReturnRange(2, GAMMA)
    expected = []
    for number, rewards in enumerate(episodes):
        env = np.array([number % 2])
        for step, reward in enumerate(rewards):
            seen.add(np.array([reward]), env, np.array([step == len(rewards) - 1]))
            expected.append(sum(GAMMA**n * later for n, later in enumerate(rewards[step:])))
    assert (seen.lowest, seen.highest) == pytest.approx((min(expected), max(expected)))


def test_an_open_episode_does_not_count_and_is_dropped_at_a_reset() -> None:
    seen = ReturnRange(1, GAMMA)
    seen.add(np.array([100.0]), np.array([0]), np.array([False]))
    assert seen.lowest > seen.highest
    seen.forget_open_episodes()
    seen.add(np.array([1.0]), np.array([0]), np.array([True]))
    assert (seen.lowest, seen.highest) == (1.0, 1.0)


def test_ranks_are_compared_together_and_warned_about_once() -> None:
    warnings: list[str] = []
    own = ReturnRange(1, GAMMA)
    value_range = ValueRange(own, -1.0, 5.0, warnings.append)
    assert value_range.local() == {}
    assert value_range.summarize([{}, {}]) == {}
    parts = [{"returns_from_to": [0.0, 4.0]}, {}, {"returns_from_to": [-0.5, 6.0]}]
    assert value_range.summarize(parts) == {"lowest_discounted_return": -0.5, "highest_discounted_return": 6.0}
    value_range.summarize(parts)
    assert len(warnings) == 1
    assert "from -0.5 to 6 were seen, and values from -1 to 5 can be represented" in warnings[0]


@pytest.mark.parametrize("algorithm", ["c51", "hl-gauss", "qr"])
def test_a_run_warns_and_records_the_range(algorithm: str, tmp_path: Path) -> None:
    """CartPole's returns are about ten in random episodes; QR-DQN has no range."""
    options = ("--learner", "tensorflow", "--algorithm", algorithm, "--value-max", "3", "--value-min", "0")
    ended = run(*QUICK, *options, "--total-env-steps", "100", "--runs-dir", str(tmp_path))
    assert ended.code == 0, ended.printed
    (path,) = tmp_path.rglob("metrics.jsonl")
    last = [json.loads(line) for line in path.read_text().splitlines() if '"training"' in line][-1]
    if algorithm == "qr":
        assert "highest_discounted_return" not in last
        assert "can be represented" not in ended.printed
    else:
        assert last["highest_discounted_return"] > 3
        assert last["lowest_discounted_return"] == 1
        assert ended.printed.count("can be represented") == 1
