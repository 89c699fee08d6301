"""Laws of the ring replay."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.transition import Transition, TransitionForm


def _replay(capacity: int, seed: int = 0, shape: tuple[int, ...] = (2,), dtype: type = np.float32) -> RingReplay:
    return RingReplay(capacity, TransitionForm(shape, np.dtype(dtype)), np.random.default_rng(seed))


def _numbered(first: int, count: int) -> Transition:
    """Returns transitions first, first + 1, ... that carry their number in every column."""
    n = np.arange(first, first + count)
    return Transition(
        s_tm1=np.stack([n, n + 0.5], axis=1).astype(np.float32),
        a_tm1=(n % 5).astype(np.int32),
        r_t=n.astype(np.float32),
        discount_t=(n % 3 / 4).astype(np.float32),
        s_t=np.stack([n + 1, -n], axis=1).astype(np.float32),
    )


def _assert_equal(left: Transition, right: Transition) -> None:
    for name, a, b in zip(Transition._fields, left, right, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_ring_overwrites_the_oldest() -> None:
    replay = _replay(4)
    for n in range(6):
        replay.add(_numbered(n, 1))
    assert len(replay) == 4
    _assert_equal(replay.contents(), _numbered(2, 4))


def test_contents_are_in_order_of_arrival_before_and_after_the_wrap() -> None:
    replay = _replay(5)
    replay.add(_numbered(0, 3))
    _assert_equal(replay.contents(), _numbered(0, 3))
    replay.add(_numbered(3, 4))
    _assert_equal(replay.contents(), _numbered(2, 5))


@pytest.mark.parametrize("count", [4, 5, 8, 11])
@pytest.mark.parametrize("before", [0, 1, 3, 4])
def test_a_batch_larger_than_the_ring_leaves_its_newest_part(before: int, count: int) -> None:
    replay = _replay(4)
    replay.add(_numbered(0, before))
    replay.add(_numbered(before, count))
    _assert_equal(replay.contents(), _numbered(before + count - 4, 4))


def test_an_empty_batch_changes_nothing() -> None:
    replay = _replay(4)
    replay.add(_numbered(0, 3))
    replay.add(_numbered(3, 0))
    _assert_equal(replay.contents(), _numbered(0, 3))


@settings(max_examples=60)
@given(st.integers(1, 9), st.lists(st.integers(0, 20), max_size=12))
def test_ring_behaves_as_a_bounded_deque(capacity: int, counts: list[int]) -> None:
    replay, model = _replay(capacity), deque[int](maxlen=capacity)
    added = 0
    for count in counts:
        replay.add(_numbered(added, count))
        model.extend(range(added, added + count))
        added += count
        assert len(replay) == len(model)
        _assert_equal(replay.contents(), _numbered(model[0], len(model)) if model else _numbered(0, 0))


def test_sampled_columns_belong_to_one_transition() -> None:
    replay = _replay(50)
    replay.add(_numbered(0, 80))
    sample = replay.sample(4, 25).transitions
    numbers = sample.r_t.ravel().astype(int)
    assert numbers.min() >= 30
    for number, *columns in zip(numbers, *(c.reshape(100, *c.shape[2:]) for c in sample), strict=True):
        _assert_equal(Transition(*(np.array([c]) for c in columns)), _numbered(number, 1))


def test_sampling_is_uniform() -> None:
    """Chi-square of 40,000 draws from 20 transitions: 99.9 % of uniform samplers stay below 43.8 (19 degrees)."""
    replay = _replay(20, seed=5)
    replay.add(_numbered(0, 30))
    counts = np.bincount(replay.sample(1, 40_000).transitions.r_t.ravel().astype(int) - 10, minlength=20)
    assert len(counts) == 20
    assert ((counts - 2000.0) ** 2 / 2000.0).sum() < 43.8


def test_a_ring_that_is_not_full_never_returns_its_empty_places() -> None:
    replay = _replay(1000)
    replay.add(_numbered(7, 3))
    assert set(replay.sample(1, 500).transitions.r_t.ravel()) == {7.0, 8.0, 9.0}


def test_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    draws = []
    for seed in (1, 1, 2):
        replay = _replay(100, seed)
        replay.add(_numbered(0, 100))
        draws.append(np.concatenate([replay.sample(*shape).transitions.r_t.ravel() for shape in ((1, 10), (3, 4))]))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_sampling_does_not_touch_the_global_random_state() -> None:
    replay = _replay(10)
    replay.add(_numbered(0, 10))
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    replay.sample(1, 5)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_samples_and_contents_are_copies() -> None:
    replay = _replay(4)
    replay.add(_numbered(0, 4))
    sample, contents = replay.sample(2, 8).transitions, replay.contents()
    replay.add(_numbered(100, 4))
    assert sample.r_t.max() < 4
    assert contents.r_t.max() < 4
    sample.s_t[:] = 77
    assert (replay.contents().s_t != 77).all()


def test_the_ring_keeps_its_own_copy_of_what_was_added() -> None:
    replay, batch = _replay(4), _numbered(0, 2)
    replay.add(batch)
    batch.s_tm1[:] = 77
    _assert_equal(replay.contents(), _numbered(0, 2))


@pytest.mark.parametrize(("shape", "dtype"), [((), np.int32), ((3,), np.float32), ((4, 84, 84), np.uint8)])
def test_observations_keep_dtype_and_shape(shape: tuple[int, ...], dtype: type) -> None:
    replay = _replay(6, shape=shape, dtype=dtype)
    observation: np.ndarray = np.full((2, *shape), 200, dtype)
    replay.add(_numbered(0, 2)._replace(s_tm1=observation, s_t=observation))
    for sample in (replay.sample(3, 5).transitions, replay.blank(3, 5).transitions):
        assert sample.s_tm1.shape == sample.s_t.shape == (3, 5, *shape)
        assert sample.s_tm1.dtype == sample.s_t.dtype == dtype
        assert [c.dtype for c in sample[1:4]] == [np.int32, np.float32, np.float32]
    np.testing.assert_array_equal(replay.contents().s_t, observation)


def test_a_blank_sample_has_the_form_of_a_sample_and_zeros() -> None:
    replay = _replay(4)
    blank = replay.blank(2, 3)
    replay.add(_numbered(0, 1))
    sample = replay.sample(2, 3)
    for zeros, drawn in zip([*blank.transitions, *blank[1:]], [*sample.transitions, *sample[1:]], strict=True):
        assert (zeros.shape, zeros.dtype) == (drawn.shape, drawn.dtype)
    assert all((column == 0).all() for column in blank.transitions)


def test_all_memory_is_taken_at_construction() -> None:
    """Per transition: two observations of 2 float32, an int32, two float32."""
    assert _replay(1000).nbytes == 1000 * (2 * 8 + 4 + 4 + 4)
    assert Spaces((2,), np.dtype(np.float32), 0, 2).transition_form.stored_bytes == 2 * 8 + 4 + 4 + 4, (
        "the start report's"
    )


def test_an_empty_replay_and_an_impossible_capacity_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        _replay(4).sample(1, 1)
    for capacity in (0, -3):
        with pytest.raises(ValueError, match="at least 1"):
            _replay(capacity)


def test_a_sample_tells_where_its_transitions_lie_and_how_likely_they_were() -> None:
    replay = _replay(5)
    replay.add(_numbered(0, 7))
    sample = replay.sample(3, 40)
    in_place = np.array([5, 6, 2, 3, 4])  # number n lies at n % 5
    np.testing.assert_array_equal(in_place[sample.indices], sample.transitions.r_t)
    assert (sample.indices.dtype, sample.probabilities.dtype) == (np.int64, float)
    np.testing.assert_array_equal(sample.probabilities, np.full((3, 40), 1 / 5))


def test_probabilities_are_those_of_the_number_stored_at_the_draw() -> None:
    replay = _replay(5)
    for stored in (2, 4, 5):
        replay.add(_numbered(0, 2))
        np.testing.assert_array_equal(replay.sample(1, 3).probabilities, np.full((1, 3), 1 / stored))


def test_a_sample_is_overwritten_by_the_next_of_its_shape_alone() -> None:
    """Its transitions are; its indices are its own, as priorities come back for them."""
    replay = _replay(100)
    replay.add(_numbered(0, 100))
    first = replay.sample(2, 20)
    kept, indices = first.transitions.r_t.copy(), first.indices.copy()
    second = replay.sample(2, 20)
    assert second.transitions.r_t is first.transitions.r_t
    assert (first.transitions.r_t != kept).any()
    np.testing.assert_array_equal(first.indices, indices)
    remembered = second.transitions.r_t.copy()
    replay.sample(1, 20)
    np.testing.assert_array_equal(second.transitions.r_t, remembered)


def test_an_action_may_have_joints() -> None:
    replay = RingReplay(4, TransitionForm((2,), np.dtype(np.float32), (3,)), np.random.default_rng(0))
    actions = np.arange(18, dtype=np.int32).reshape(6, 3)
    replay.add(_numbered(0, 6)._replace(a_tm1=actions))
    np.testing.assert_array_equal(replay.contents().a_tm1, actions[2:])
    sample = replay.sample(2, 5).transitions
    np.testing.assert_array_equal(sample.a_tm1, actions[sample.r_t.astype(int)])


def test_priorities_and_extra_state_change_nothing_in_a_uniform_replay() -> None:
    draws = []
    for priorities in (None, np.array([1e6, 0.0, 0.0], np.float32)):
        replay = _replay(10)
        replay.add(_numbered(0, 10))
        if priorities is not None:
            replay.update_priorities(np.arange(3), priorities)
        assert replay.extra_state() == {}
        draws.append(replay.sample(2, 30).indices)
    np.testing.assert_array_equal(draws[0], draws[1])


def test_a_restored_replay_counts_and_draws_on_as_the_one_it_was_taken_from() -> None:
    """Of a smaller capacity it keeps the newest."""
    original = _replay(7, seed=3)
    original.add(_numbered(0, 17))
    restored = _replay(7, seed=3)
    restored.add(_numbered(50, 3))
    restored.restore(original.contents(), original.added)
    assert (len(restored), restored.added) == (7, 17)
    for replay in (original, restored):
        replay.add(_numbered(17, 2))
    _assert_equal(restored.contents(), original.contents())
    _assert_equal(restored.sample(2, 9).transitions, original.sample(2, 9).transitions)
    smaller = _replay(4)
    smaller.restore(original.contents(), original.added)
    _assert_equal(smaller.contents(), _numbered(15, 4))


def test_more_transitions_than_are_stored_are_refused() -> None:
    replay = _replay(4)
    replay.add(_numbered(0, 2))
    assert len(replay.empty().r_t) == 0
    for numbers in ([-1], [0, 1, 2]):
        with pytest.raises(ValueError, match="2 are stored"):
            replay.rows(np.array(numbers))
