"""Laws of Munchausen's targets, against plain double precision."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from hvd_dqn.algorithms.base import Batch
from hvd_dqn.algorithms.munchausen import munchausen_targets, scaled_log_policy
from hvd_dqn.algorithms.munchausen_iqn import MunchausenIQN

CONSTANTS = {"bonus": 0.9, "temperature": 0.5, "floor": -1.0}


def _batch(r: list[float], a: list[int], discount: list[float]) -> Batch:
    state = tf.zeros((len(r), 1))
    return Batch(state, tf.constant(a), tf.constant(r), tf.constant(discount), state)


def test_target_equals_the_papers_formula() -> None:
    q_tm1, q_t = [[0.1, 0.4, -0.2], [1.0, 0.9, 3.0]], [[0.3, 0.3, 0.1], [2.0, -1.0, 0.0]]
    r, a, discount, tau = [1.0, -0.5], [1, 0], [0.9, 0.0], 0.5
    expected = []
    for row in range(2):
        policies = []
        for q in (q_tm1[row], q_t[row]):
            weights = [math.exp(value / tau) for value in q]
            policies.append([weight / sum(weights) for weight in weights])
        pi_tm1, pi_t = policies
        bonus = 0.9 * min(max(tau * math.log(pi_tm1[a[row]]), -1.0), 0.0)
        soft = sum(p * (q - tau * math.log(p)) for p, q in zip(pi_t, q_t[row], strict=True))
        expected.append(r[row] + bonus + discount[row] * soft)
    targets = munchausen_targets(_batch(r, a, discount), tf.constant(q_tm1), tf.constant(q_t), **CONSTANTS)
    np.testing.assert_allclose(targets, expected, rtol=1e-5)


def test_the_bonus_is_at_least_the_floor_and_never_positive() -> None:
    q = tf.constant([[0.0, 100.0], [0.0, 100.0]])
    targets = munchausen_targets(_batch([0.0, 0.0], [0, 1], [0.0, 0.0]), q, q, **CONSTANTS)
    np.testing.assert_allclose(targets, [-0.9, 0.0], atol=1e-6)


def test_a_cold_policy_without_bonus_is_dqns_target() -> None:
    q_t = tf.constant([[1.0, 3.0, 2.0]])
    constants = CONSTANTS | {"bonus": 0.0, "temperature": 0.01}
    targets = munchausen_targets(_batch([1.0], [0], [0.9]), q_t, q_t, **constants)
    np.testing.assert_allclose(targets, [1.0 + 0.9 * 3.0], rtol=1e-5)


def test_large_values_do_not_overflow() -> None:
    log_policy = scaled_log_policy(tf.constant([[1e5, 1e5 - 1.0, 0.0]]), 0.03).numpy()
    assert np.isfinite(log_policy).all()
    np.testing.assert_allclose(log_policy[0, :2], [0.0, -1.0], atol=1e-2)


def test_no_gradient_flows_through_targets() -> None:
    q = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(q)
        targets = munchausen_targets(_batch([1.0], [0], [0.9]), q, q, **CONSTANTS)
    assert tape.gradient(targets, q) is None


def test_quantiles_that_are_all_alike_give_the_scalar_target() -> None:
    """And others are moved by the policy's mean alone: two actions with opposite quantiles and one value each."""
    q_tm1, q_t = tf.constant([[0.1, 0.4]]), tf.constant([[0.3, 0.1]])
    spread = np.array([[[-1.0, 1.0], [2.0, -2.0]]], np.float32)  # [B, A, N]
    batch = _batch([1.0], [1], [0.9])._replace(s_tm1="tm1", s_t="t")
    algorithm = MunchausenIQN(2, 0.9, 0.5, -1.0)
    means = {"tm1": q_tm1, "t": q_t}

    def target(state: str, fractions: tf.Tensor | None = None) -> tf.Tensor:
        own = means[state][:, :, None] + tf.zeros((1, 1, 2))
        return own if fractions is None else own + spread

    found = algorithm._targets(target, target, batch, tf.constant([[0.2, 0.8]])).numpy()
    scalar = munchausen_targets(batch, q_tm1, q_t, **CONSTANTS).numpy()
    pi = np.exp(q_t / 0.5) / np.exp(q_t / 0.5).sum()
    np.testing.assert_allclose(found[0], scalar[0] + 0.9 * (pi @ spread[0])[0], rtol=1e-5)
