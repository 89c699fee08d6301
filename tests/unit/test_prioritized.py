"""Laws of prioritised replay: what is drawn, how often, and with which weight, on one rank and over several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.errors import UserError
from hvd_dqn.replay.base import Refill, empty_columns, reader_of
from hvd_dqn.replay.prioritized import PrioritizedReplay, importance_weights
from hvd_dqn.replay.sum_tree import SumTree
from hvd_dqn.training.priorities import Priorities
from hvd_dqn.transition import Transition, TransitionForm


def _numbered(first: int, count: int) -> Transition:
    n = np.arange(first, first + count, dtype=np.float32)
    return Transition(n[:, None], n.astype(np.int32), n, n, n[:, None] + 1)


def _replay(capacity: int = 100, seed: int = 0, exponent: float = 1.0) -> PrioritizedReplay:
    form = TransitionForm((1,), np.dtype(np.float32))
    return PrioritizedReplay(capacity, form, np.random.default_rng(seed), priority_exponent=exponent)


def _refill(replay: PrioritizedReplay, other: PrioritizedReplay, order: np.ndarray) -> None:
    """Gives a replay the contents of another, which arrive in some order, in three parts."""
    read, refill = reader_of(other), Refill(replay)
    refill.begin(len(other))
    for places in np.array_split(order, 3):
        refill.put(places, read(places))
    refill.finish()


@given(st.integers(1, 20_000), st.integers(0, 2**31))
def test_a_tree_finds_what_a_running_sum_finds(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree, values = SumTree(size), np.zeros(size)
    for _ in range(3):
        indices = rng.integers(size, size=min(size, 40))
        new = rng.integers(0, 5, size=len(indices)).astype(float)
        tree.set(indices, new)
        values[indices] = new
    assert tree.total == values.sum()
    if tree.total > 0:
        points = (1.0 - rng.random(50)) * tree.total
        found = tree.find(points)
        np.testing.assert_array_equal(found, np.searchsorted(values.cumsum(), points))
        assert (values[found] > 0).all()


@pytest.mark.parametrize("size", [20, 5000, 100_000])
def test_the_ends_of_the_sum_find_values_that_are_not_zero(size: int) -> None:
    """Rounding can put a point beyond its node's children."""
    tree = SumTree(size)
    tree.set(np.arange(7, size - 5), 0.1)
    assert tree.find(np.array([1e-300, tree.total])).tolist() == [7, size - 6]


def test_draws_follow_the_priorities() -> None:
    """Chi-square over 100,000 draws; the reported probabilities are those."""
    replay = _replay(exponent=0.5)
    replay.add(_numbered(0, 60))
    priorities = np.linspace(0.0, 4.0, 60, dtype=np.float32)
    replay.update_priorities(np.arange(60), priorities)
    sample = replay.sample(100, 1000)
    expected = np.sqrt(priorities + 1e-6, dtype=np.float64)
    expected /= expected.sum()
    np.testing.assert_allclose(sample.probabilities, expected[sample.indices], rtol=1e-6)
    counts = np.bincount(sample.indices.ravel(), minlength=60)
    often = expected * counts.sum() >= 5
    chi_square = ((counts - expected * counts.sum()) ** 2 / (expected * counts.sum()))[often].sum()
    freedom = often.sum() - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)
    np.testing.assert_array_equal(sample.transitions.a_tm1, sample.indices)


def test_new_transitions_have_the_largest_priority_of_the_job() -> None:
    replay = _replay()
    replay.add(_numbered(0, 10))
    replay.update_priorities(np.arange(10), np.full(10, 0.5, np.float32))
    replay.largest_priority = 8.0  # of another rank
    replay.add(_numbered(10, 1))
    assert replay.extra_state()["priorities"].tolist() == pytest.approx([0.5] * 10 + [8.0], rel=1e-5)


def test_a_record_has_the_mean_and_the_largest_priority_of_all_ranks() -> None:
    """Three transitions of 0.5 here, one of 2 on a rank that has seen 4."""
    few, one = _replay(), _replay()
    few.add(_numbered(0, 3))
    few.update_priorities(np.arange(3), np.full(3, 0.5, np.float32))
    one.add(_numbered(0, 1))
    one.update_priorities(np.arange(1), np.full(1, 2.0, np.float32))
    one.largest_priority = 4.0
    ranks = [Priorities(few), Priorities(one)]
    found = ranks[0].summarize([rank.local() for rank in ranks])
    assert found == pytest.approx({"mean_priority": 3.5 / 4, "largest_priority": 4.0}, rel=1e-4)
    assert ranks[0].summarize([Priorities(_replay()).local()])["mean_priority"] == 0.0


def test_of_one_transition_drawn_twice_the_last_priority_counts() -> None:
    replay = _replay()
    replay.add(_numbered(0, 3))
    replay.update_priorities(np.array([[1, 2], [1, 0]]), np.array([[5.0, 6.0], [7.0, 8.0]], np.float32))
    assert replay.extra_state()["priorities"].tolist() == pytest.approx([8.0, 7.0, 6.0], rel=1e-5)


def test_overwritten_transitions_are_never_drawn() -> None:
    replay = _replay(capacity=40)
    for first in range(0, 70, 7):
        replay.add(_numbered(first, 7))
        assert replay.sample(1, 200).transitions.a_tm1.min() >= max(0, first + 7 - 40)
    assert len(replay) == 40


def test_unlike_ranks_together_estimate_the_mean_of_everything_without_bias() -> None:
    """Three ranks of unlike size, priorities and share of the batch; beta 1, and N over all ranks.

    The mean of the weighted global batches tends to the mean over all transitions: within four standard errors.
    """
    shares, sizes, batch = (16, 10, 6), (20, 50, 9), 32
    total, estimates = sum(sizes), np.zeros(4000)
    for rank, (share, size) in enumerate(zip(shares, sizes, strict=True)):
        replay, first = _replay(seed=rank, exponent=0.7), 100 * rank
        replay.add(_numbered(first, size))
        replay.update_priorities(np.arange(size), np.random.default_rng(rank).exponential(size=size).astype(np.float32))
        sample = replay.sample(len(estimates), share)
        weights = importance_weights(sample.probabilities, share / batch, 1.0).astype(np.float64) / total
        estimates += (weights * sample.transitions.r_t).sum(axis=1) / batch
    true = sum((100 * rank + (size - 1) / 2) * size for rank, size in enumerate(sizes)) / total
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - true) < 4 * error
    assert error < 0.05 * true, "the test can tell a bias"


@given(st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_weights_are_those_of_one_process_that_holds_the_union(exponent: float, seed: int) -> None:
    """Divided by the largest: (N P) ** -beta / max, where P is a draw's probability in the global batch."""
    rng = np.random.default_rng(seed)
    shares, sizes = np.array([5, 2, 1]), np.array([30, 4, 11])
    powers = [rng.exponential(size=size) + 1e-3 for size in sizes]
    own, union = [], []
    for share, power in zip(shares, powers, strict=True):
        probabilities = power / power.sum()
        own.append(importance_weights(probabilities, share / shares.sum(), exponent))
        union.append((sizes.sum() * share / shares.sum() * probabilities) ** -exponent)
    together, reference = np.concatenate(own), np.concatenate(union)
    np.testing.assert_allclose(together / together.max(), reference / reference.max(), rtol=1e-6)


def test_priorities_go_with_their_transitions_to_another_replay() -> None:
    """Of another capacity: the newest rows stay."""
    first, second = _replay(), _replay(capacity=8, seed=1)
    first.add(_numbered(0, 20))
    first.update_priorities(np.arange(20), np.arange(20, dtype=np.float32))
    for column, empty in zip(reader_of(first)(np.arange(20)), empty_columns(second), strict=True):
        assert (column.dtype, column.shape[1:]) == (empty.dtype, empty.shape[1:])
    second.add(_numbered(50, 3))
    _refill(second, first, np.random.default_rng(2).permutation(20))
    assert (second.added, second.contents().a_tm1.tolist()) == (20, list(range(12, 20)))
    np.testing.assert_allclose(second.extra_state()["priorities"], np.arange(12, 20), rtol=1e-5)
    assert second.sample(50, 50).transitions.a_tm1.min() >= 12


def test_a_restored_replay_draws_what_the_saved_one_draws() -> None:
    first, second = _replay(seed=3), _replay(seed=3)
    first.add(_numbered(0, 130))
    first.update_priorities(np.arange(100), np.linspace(0.0, 1.0, 100, dtype=np.float32))
    second.restore(first.contents(), first.added)
    second.load_extra_state(first.extra_state())
    for _ in range(3):
        drawn = [replay.sample(4, 16) for replay in (first, second)]
        np.testing.assert_array_equal(drawn[0].indices, drawn[1].indices)
        np.testing.assert_array_equal(drawn[0].probabilities, drawn[1].probabilities)
        for replay in (first, second):
            replay.update_priorities(drawn[0].indices, drawn[0].transitions.r_t)


@pytest.mark.parametrize("powers", [np.zeros(2), np.ones(5), np.array([1.0, np.nan]), np.array([-1.0, 1.0])])
def test_priorities_that_are_none_are_refused(powers: np.ndarray) -> None:
    replay = _replay()
    replay.add(_numbered(0, 2))
    with pytest.raises(UserError, match="priorities cannot be used"):
        replay.load_extra_state({"priorities": powers.astype(np.float32)})
