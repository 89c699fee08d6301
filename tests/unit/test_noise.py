"""Laws of the random numbers inside an update: addressed by seed, update and row of the global batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from hvd_dqn.algorithms.noise import Noise, threefry
from hvd_dqn.shares import first_index, share

ROWS = 11


def _draws(
    seed: int = 7, update: int = 3, first_row: int = 0, rows: int = ROWS, *, jit_compile: bool | None = None
) -> list[np.ndarray]:
    """Returns two uniform draws and a normal one of an update, eagerly where `jit_compile` is None."""

    def draw(update: tf.Tensor) -> list[tf.Tensor]:
        noise = Noise(seed, update, first_row, rows, ROWS)
        return [noise.uniform(3), noise.uniform(3), noise.normal(2, 2)]

    run = draw if jit_compile is None else tf.function(draw, jit_compile=jit_compile, autograph=False)
    return [tensor.numpy() for tensor in run(tf.constant(update))]


@pytest.mark.parametrize("size", [1, 2, 3, 11])
def test_a_row_of_the_global_batch_has_the_same_numbers_at_any_split_over_ranks(size: int) -> None:
    whole = _draws()
    parts = [_draws(first_row=first_index(ROWS, rank, size), rows=share(ROWS, rank, size)) for rank in range(size)]
    first, second, normal = (np.concatenate([part[draw] for part in parts]) for draw in range(3))
    np.testing.assert_array_equal(first, whole[0])
    np.testing.assert_array_equal(second, whole[1])
    np.testing.assert_allclose(normal, whole[2], rtol=1e-6, atol=1e-7)  # its logarithm and cosine are rounded


def test_another_update_seed_draw_or_row_gives_other_numbers() -> None:
    uniform, second, _ = _draws()
    for other in (second, _draws(update=4)[0], _draws(seed=8)[0]):
        assert (uniform != other).all()
    assert len(np.unique(uniform)) == uniform.size
    np.testing.assert_array_equal(_draws()[0], uniform)


def test_seeds_of_31_bits_are_taken() -> None:
    assert np.isfinite(_draws(seed=2**31 - 1, update=2**31 - 1)[0]).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_xla_cluster_and_a_plain_graph_draw_alike(jit_compile: bool) -> None:
    uniform, second, normal = _draws(jit_compile=jit_compile)
    for drawn, expected in zip((uniform, second), _draws(), strict=False):
        np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_allclose(normal, _draws()[2], rtol=1e-4, atol=1e-6)  # a transcendental function, rounded


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers(
    key: tuple[int, int], counter: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Of Random123, the authors' own implementation (kat_vectors, threefry2x32 20)."""
    words = threefry(*(tf.constant(word, tf.uint32) for word in (*key, *counter)))
    assert tuple(int(word) for word in words) == expected


def test_numbers_have_their_distributions() -> None:
    noise = Noise(1, tf.constant(1), 0, 4, 4)
    uniform, normal = noise.uniform(5_000).numpy(), noise.normal(5_000).numpy()
    assert (uniform.dtype, normal.dtype) == (np.float32, np.float32)
    assert 0.0 <= uniform.min() < uniform.max() < 1.0
    assert (uniform.mean(), uniform.var()) == pytest.approx((0.5, 1 / 12), abs=0.01)
    assert (normal.mean(), normal.var()) == pytest.approx((0.0, 1.0), abs=0.05)
