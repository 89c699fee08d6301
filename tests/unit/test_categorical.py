"""Laws of C51's projection and of HL-Gauss's histogram, on paper and against plain double precision."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.c51 import project
from hvd_dqn.algorithms.categorical import cross_entropy, expected_value, support
from hvd_dqn.algorithms.hl_gauss import RELATIVE_WIDTH, gaussian_histogram

ATOMS = support(-2.0, 2.0, 5)  # -2, -1, 0, 1, 2


def _projected(r: float, discount: float, p: list[float]) -> np.ndarray:
    return project(ATOMS, tf.constant([r]), tf.constant([discount]), tf.constant([p], tf.float32)).numpy()[0]


def test_a_target_between_two_atoms_is_split_by_its_distances() -> None:
    """0.25 + 1 * 1 = 1.25: three quarters to atom 1, one quarter to atom 2."""
    np.testing.assert_allclose(_projected(0.25, 1.0, [0, 0, 0, 1, 0]), [0, 0, 0, 0.75, 0.25], atol=1e-6)


def test_a_terminal_state_puts_all_mass_on_the_reward() -> None:
    np.testing.assert_allclose(_projected(-1.0, 0.0, [0.2] * 5), [0, 1, 0, 0, 0], atol=1e-6)


def test_mass_beyond_the_ends_counts_as_the_ends() -> None:
    np.testing.assert_allclose(_projected(100.0, 1.0, [0.2] * 5), [0, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(_projected(-100.0, 1.0, [0.2] * 5), [1, 0, 0, 0, 0], atol=1e-6)


def test_projection_equals_the_papers_loop() -> None:
    """Bellemare et al. (2017), Algorithm 1, atom by atom in double precision."""
    rng = np.random.default_rng(0)
    r, discount, p = rng.normal(size=6), rng.uniform(size=6), rng.dirichlet(np.ones(5), size=6)
    expected = np.zeros((6, 5))
    for row in range(6):
        for j, z in enumerate([-2.0, -1.0, 0.0, 1.0, 2.0]):
            b = (min(max(r[row] + discount[row] * z, -2.0), 2.0) + 2.0) / 1.0
            low, high = math.floor(b), math.ceil(b)
            expected[row, low] += p[row, j] * (high - b if high > low else 1.0)
            expected[row, high] += p[row, j] * (b - low)
    arguments = [tf.constant(values, tf.float32) for values in (r, discount, p)]
    np.testing.assert_allclose(project(ATOMS, *arguments), expected, atol=1e-6)


def test_projection_keeps_the_mean_inside_the_support() -> None:
    p = np.array([0.0, 0.25, 0.5, 0.25, 0.0])
    projected = _projected(0.3, 0.5, p.tolist())
    assert projected @ ATOMS == pytest.approx(0.3 + 0.5 * (p @ ATOMS), abs=1e-6)


def test_a_histograms_bins_are_integrals_of_the_gaussian() -> None:
    """Against SciPy-free double precision: Phi of each edge, normalised over all bins."""
    targets = [-2.0, -0.3, 0.0, 1.4]
    sigma = RELATIVE_WIDTH * 1.0
    phi = lambda x, mean: 0.5 * (1.0 + math.erf((x - mean) / (sigma * math.sqrt(2.0))))  # noqa: E731
    edges = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    expected = [
        [(phi(b, mean) - phi(a, mean)) / (phi(2.5, mean) - phi(-2.5, mean)) for a, b in itertools.pairwise(edges)]
        for mean in targets
    ]
    np.testing.assert_allclose(gaussian_histogram(ATOMS, tf.constant(targets)), expected, atol=1e-6)


@pytest.mark.parametrize("target", [-1e6, -2.0, 0.4, 2.0, 1e6])
def test_a_histogram_sums_to_one_wherever_its_target_is(target: float) -> None:
    histogram = gaussian_histogram(ATOMS, tf.constant([target])).numpy()
    assert histogram.sum() == pytest.approx(1.0, abs=1e-6)
    assert np.isfinite(histogram).all()


def test_a_histograms_mean_is_its_target_in_the_middle_of_the_support() -> None:
    values = support(-10.0, 10.0, 51)
    histogram = gaussian_histogram(values, tf.constant([1.234]))
    assert float(tf.reduce_sum(histogram * values)) == pytest.approx(1.234, abs=1e-4)


def test_expected_value_of_equal_logits_is_the_middle() -> None:
    np.testing.assert_allclose(expected_value(tf.zeros((2, 3, 5)), ATOMS), np.zeros((2, 3)), atol=1e-7)


def test_cross_entropys_gradient_is_prediction_minus_target() -> None:
    logits, targets = tf.constant([[0.0, 1.0, -1.0]]), tf.constant([[0.2, 0.3, 0.5]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([logits, targets])
        loss = cross_entropy(targets, logits)
    np.testing.assert_allclose(tape.gradient(loss, logits), tf.nn.softmax(logits) - targets, atol=1e-6)
    assert tape.gradient(loss, targets) is None


def test_no_gradient_flows_through_targets() -> None:
    r, discount, p = tf.constant([0.3]), tf.constant([0.9]), tf.constant([[0.2] * 5])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([r, discount, p])
        projected, histogram = project(ATOMS, r, discount, p), gaussian_histogram(ATOMS, r)
    assert tape.gradient(projected, [r, discount, p]) == [None] * 3
    assert tape.gradient(histogram, r) is None
