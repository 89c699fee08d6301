"""Reshards numbered transitions over real ranks, in several exchanges, and writes what each rank holds then.

resharded.py OUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment

prepare_environment(read_launch(), 1, 60.0)

import numpy as np  # noqa: E402

from hvd_dqn.checkpoint import reshard  # noqa: E402
from hvd_dqn.distributed.horovod import HorovodCommunicator  # noqa: E402
from hvd_dqn.replay.base import Refill, reader_of  # noqa: E402
from hvd_dqn.replay.ring import RingReplay  # noqa: E402
from hvd_dqn.transition import Transition, TransitionForm  # noqa: E402

HELD = [1000, 400, 0]
CAPACITY = 1500


def numbered(first: int, count: int) -> Transition:
    """Returns transitions first, first + 1, ... that carry their number in every column that has room for it."""
    n = np.arange(first, first + count)
    image = np.stack([n // 256, n % 256], axis=1).astype(np.uint8)
    return Transition(image, n.astype(np.int32), n.astype(np.float32), n.astype(np.float32) / 7, image[:, ::-1].copy())


def main() -> None:
    """Runs on every rank."""
    communicator = HorovodCommunicator()
    reshard._BYTES_AT_A_TIME = 100 * 32  # some hundred rows
    first = [10_000, 20_000, 30_000][communicator.rank]
    beats: list[None] = []
    form = TransitionForm((2,), np.dtype(np.uint8))
    before, after = (RingReplay(size, form, np.random.default_rng(0)) for size in (max(HELD), CAPACITY))
    before.add(numbered(first, HELD[communicator.rank]))
    moved = reshard.rebalance(
        reader_of(before),
        HELD,
        Refill(after),
        rank=communicator.rank,
        capacity=CAPACITY,
        exchange=communicator.exchange,
        beat=lambda: beats.append(None),
    )
    held = after.contents()
    numbers = held.a_tm1.tolist()
    expected = [numbered(number, 1) for number in numbers]
    same = all(
        np.array_equal(column, np.concatenate([getattr(part, name) for part in expected]))
        and column.dtype == getattr(expected[0], name).dtype
        for name, column in held._asdict().items()
    )
    said = {"numbers": numbers, "moved": moved, "same": bool(same), "beats": len(beats)}
    parts = communicator.gather_json(said)
    if communicator.rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(parts))
    communicator.barrier()
    communicator.shutdown()


if __name__ == "__main__":
    main()
