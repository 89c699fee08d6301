"""A parameter server's shard makes the step of the whole vector, whatever the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.learner.learner import StepSettings
from hvd_dqn.learner.shard import Shard, bounds, tail_length
from hvd_dqn.learner.update import read_sum, step

TOTAL, SIGNALS = 101, 2


def settings(**changes: Any) -> StepSettings:
    """Returns settings of an update of two ranks."""
    values: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.01, "max_grad_norm": 1.0, "size": 2}
    values |= {"batch_size_per_rank": 8, "first_row": 0, "global_batch_size": 16, "num_signals": SIGNALS}
    return StepSettings(**values | changes)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("changes", [{}, {"optimizer": "rmsprop", "weighted": True}, {"max_grad_norm": 0.0}])
def test_shards_together_make_the_step_of_the_whole_vector(count: int, changes: dict[str, Any]) -> None:
    """Ten clipped steps, with the squared norm summed over the shards."""
    own, rng = settings(**changes), np.random.default_rng(7)
    parameters = rng.normal(size=TOTAL).astype(np.float32)
    online, slots = tf.constant(parameters), (tf.zeros(TOTAL), tf.zeros(TOTAL))
    parts = [bounds(TOTAL, index, count) for index in range(count)]
    shards = [Shard(part.stop - part.start, own) for part in parts]
    for shard, part in zip(shards, parts, strict=True):
        zeros = np.zeros(2 * shard.length, np.float32)
        shard.load(np.concatenate([parameters[part], zeros]))
    for number in range(1, 11):
        gradient = rng.normal(size=TOTAL).astype(np.float32)
        tail = rng.uniform(0.5, 2.0, tail_length(own)).astype(np.float32)
        summed = read_sum(tf.constant(np.concatenate([gradient, tail])), TOTAL, own)
        rate = tf.constant(0.01)
        online, slots = step(own, tf.constant(float(number)), rate, online, slots, summed.gradient, summed.square)
        read = [shard.read(gradient[part], tail) for shard, part in zip(shards, parts, strict=True)]
        square = sum(own_sum.square for own_sum in read)
        for shard, own_sum in zip(shards, read, strict=True):
            shard.apply(number, 0.01, own_sum.gradient, square)
            np.testing.assert_allclose(own_sum.statistics, summed.statistics, rtol=1e-6)
            np.testing.assert_allclose(own_sum.signals, tail[3 : 3 + SIGNALS])
            assert own_sum.priority == pytest.approx(float(summed.priority))
    np.testing.assert_allclose(np.concatenate([shard.online for shard in shards]), online, rtol=1e-5, atol=1e-6)
    for index, slot in enumerate(slots):
        np.testing.assert_allclose(np.concatenate([shard.slots[index] for shard in shards]), slot, rtol=1e-4, atol=1e-7)


def test_a_tail_that_is_not_finite_is_noticed_on_every_shard() -> None:
    shard = Shard(5, settings())
    tail = np.zeros(tail_length(settings()), np.float32)
    assert np.isfinite(shard.read(np.ones(5, np.float32), tail).tail_square)
    tail[0] = np.nan
    assert not np.isfinite(shard.read(np.ones(5, np.float32), tail).tail_square)


@pytest.mark.parametrize(("total", "count"), [(10, 3), (2, 2), (7, 1)])
def test_shards_cover_a_vector_once(total: int, count: int) -> None:
    covered = [position for index in range(count) for position in range(total)[bounds(total, index, count)]]
    assert covered == list(range(total))
