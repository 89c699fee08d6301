"""Laws of the action log: it holds every open episode's actions, in little memory, and appending stays cheap."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_dqn.envs.action_log import ActionLog


@pytest.mark.parametrize("joints", [(), (2,)])
def test_the_log_holds_the_open_episodes_actions(joints: tuple[int, ...]) -> None:
    """Against plain lists, through many episodes of unlike lengths and a restore in the middle."""
    rng = np.random.default_rng(0)
    log = ActionLog(3, np.dtype(np.uint8))
    lists: list[list[np.ndarray]] = [[], [], []]
    for step in range(5000):
        actions = rng.integers(256, size=(3, *joints))
        log.append(actions)
        for env in range(3):
            lists[env].append(actions[env])
        begun = rng.random(3) < (0.3, 0.01, 0.0005)
        log.begin(begun)
        lists = [[] if begun[env] else lists[env] for env in range(3)]
        if step % 611 == 0:
            held = [log.of(env) for env in range(3)]
            for env in range(3):
                np.testing.assert_array_equal(held[env], np.array(lists[env], np.uint8).reshape(held[env].shape))
            log = ActionLog(3, np.dtype(np.uint8))
            log.restore(held)


def test_a_long_episode_takes_little_memory() -> None:
    """100,000 steps in 16 environments: at most four bytes per action, also where all others end at once."""
    log, actions = ActionLog(16, np.dtype(np.uint8)), np.ones(16, np.int64)
    others = np.arange(1, 16)
    for _ in range(100_000):
        log.append(actions)
        log.begin(others)
    assert len(log.of(0)) == 100_000
    assert log.nbytes <= 4 * 16 * 100_000


def test_appending_copies_each_row_a_few_times_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is made seldom: after as many steps as there are rows to be moved."""
    moved = 0
    make_room = ActionLog._make_room

    def counted(log: ActionLog, shape: tuple[int, ...]) -> None:
        nonlocal moved
        make_room(log, shape)
        moved += log._used

    monkeypatch.setattr(ActionLog, "_make_room", counted)
    log, actions = ActionLog(4, np.dtype(np.uint8)), np.ones(4, np.int64)
    for step in range(200_000):
        log.append(actions)
        if step % 1000 == 999:
            log.begin(np.arange(4) == step // 1000 % 4)  # every episode takes 4,000 steps
    assert log.nbytes <= 4 * 4 * 4000
    assert moved <= 2 * 200_000
