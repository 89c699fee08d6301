"""Laws of dealing an amount out over the ranks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hvd_dqn.shares import first_index, share

amounts, sizes = st.integers(0, 10**9), st.integers(1, 64)


def test_128_over_three_ranks_is_43_43_42() -> None:
    assert [share(128, rank, 3) for rank in range(3)] == [43, 43, 42]
    assert [first_index(128, rank, 3) for rank in range(3)] == [0, 43, 86]


@given(amounts, sizes)
def test_shares_sum_to_the_amount(amount: int, size: int) -> None:
    assert sum(share(amount, rank, size) for rank in range(size)) == amount


@given(amounts, sizes)
def test_shares_differ_by_at_most_one_and_the_first_ranks_have_more(amount: int, size: int) -> None:
    parts = [share(amount, rank, size) for rank in range(size)]
    assert parts[0] - parts[-1] in (0, 1)
    assert parts == sorted(parts, reverse=True)


@given(amounts, sizes)
def test_first_index_is_the_sum_of_the_lower_ranks_shares(amount: int, size: int) -> None:
    total = 0
    for rank in range(size):
        assert first_index(amount, rank, size) == total
        total += share(amount, rank, size)


@given(amounts)
def test_one_rank_has_everything(amount: int) -> None:
    assert share(amount, 0, 1) == amount
    assert type(share(amount, 0, 1)) is int
