"""Laws of what rank 0 prints at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvd_dqn.run.report import closing_summary


@pytest.mark.parametrize(("ranks", "command"), [(1, "  python train.py"), (4, "  horovodrun -np 4 python train.py")])
def test_the_way_on_has_the_runs_own_number_of_ranks_which_alone_ends_bit_for_bit_the_same(
    ranks: int, command: str
) -> None:
    text, _ = closing_summary(
        run_directory=Path("runs/a"),
        seconds=1.0,
        env_steps=100,
        learner_steps=10,
        best_env_steps=None,
        returns=np.array([1.0, 2.0]),
        env_id="CartPole-v1",
        ranks=ranks,
    )
    assert text.splitlines()[-1] == f"{command} --resume runs/a --total-env-steps 200"
