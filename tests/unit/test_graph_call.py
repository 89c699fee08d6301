"""A graph is called as one op, and compiled where that is asked for."""

from __future__ import annotations

import pytest
import tensorflow as tf

from hvd_dqn.learner.graph_call import GraphCall

SIGNATURE = [tf.TensorSpec([2], tf.float32)]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_results_are_those_of_the_function(*, jit_compile: bool) -> None:
    double = GraphCall(lambda x: [2.0 * x, tf.reduce_sum(x)], SIGNATURE, jit_compile=jit_compile)
    twice, total = double(tf.constant([1.0, 3.0]))
    assert twice.numpy().tolist() == [2.0, 6.0]
    assert float(total) == 4.0


def test_xla_compiles_a_graph_where_that_is_asked_for_and_only_there() -> None:
    # XLA cannot compile a look at the clock.
    def with_clock(x: tf.Tensor) -> list[tf.Tensor]:
        return [x + tf.cast(tf.timestamp(), tf.float32)]

    assert float(GraphCall(with_clock, SIGNATURE, jit_compile=False)(tf.zeros([2]))[0][0]) > 0.0
    with pytest.raises(tf.errors.InvalidArgumentError, match="XLA"):
        GraphCall(with_clock, SIGNATURE, jit_compile=True)(tf.zeros([2]))
