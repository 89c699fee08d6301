"""Laws of errors that one rank meets alone: anything that can be raised reaches all ranks as one of two kinds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator, SingleCommunicator
from hvd_dqn.errors import RankFailure, UserError


class _Two(SingleCommunicator):
    """Rank 0 of two, whose other rank gives a fixed answer."""

    size = 2

    def __init__(self, other: list[str | None]) -> None:
        self._other = other

    def gather_json(self, value: Any) -> list[Any]:
        return [value, self._other]


@pytest.mark.parametrize("run", [raise_on_any_rank, on_root])
@pytest.mark.parametrize("error", [ZeroDivisionError("x"), SystemExit(0), KeyboardInterrupt(), MemoryError()])
def test_what_no_code_expects_is_raised_with_its_rank_and_its_traceback(
    error: BaseException, run: Callable[[Communicator, Callable[[], Any]], Any]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(RankFailure, match=rf"^rank 0: unexpected {re.escape(repr(error))}\nTraceback (.|\n)*in fail"):
        run(SingleCommunicator(), fail)


@pytest.mark.parametrize("run", [raise_on_any_rank, on_root])
def test_a_users_mistake_stays_one(run: Callable[[Communicator, Callable[[], Any]], Any]) -> None:
    def fail() -> None:
        raise UserError("no such thing")

    with pytest.raises(UserError, match=r"^no such thing$"):
        run(SingleCommunicator(), fail)


@pytest.mark.parametrize(
    ("other", "kind", "says"),
    [
        (["a mistake", None], UserError, "rank 1: a mistake"),
        ([None, "unexpected KeyError('x')"], RankFailure, "rank 1: unexpected KeyError('x')"),
    ],
)
def test_a_rank_without_an_error_raises_that_of_the_other(
    other: list[str | None], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=re.escape(says)):
        raise_on_any_rank(_Two(other), lambda: "fine")
    assert raise_on_any_rank(_Two([None, None]), lambda: "fine") == "fine"
