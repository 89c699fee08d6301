"""Laws of the random streams."""

from __future__ import annotations

import itertools

import numpy as np

from hvd_dqn.seeding import generator, integer_seed


def test_the_same_address_gives_the_same_stream() -> None:
    np.testing.assert_array_equal(generator(3, "replay", 1).random(5), generator(3, "replay", 1).random(5))
    assert integer_seed(3, "environment", 1, 2) == integer_seed(3, "environment", 1, 2)


def test_seed_purpose_and_index_each_make_another_stream() -> None:
    addresses = list(itertools.product((0, 1), ("replay", "policy"), (0, 1, 2)))
    draws = {tuple(generator(seed, stream, index).random(3)) for seed, stream, index in addresses}
    seeds = {integer_seed(seed, stream, index) for seed, stream, index in addresses}
    assert len(draws) == len(seeds) == len(addresses)
    assert integer_seed(0, "e", 1, 2) != integer_seed(0, "e", 2, 1)


def test_integer_seeds_fit_into_31_bits() -> None:
    seeds = [integer_seed(seed, "environment", 0) for seed in range(200)]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert max(seeds) > 2**30
    assert type(seeds[0]) is int
