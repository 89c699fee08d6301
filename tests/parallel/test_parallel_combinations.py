"""Every combination of learner, network, launcher, ranks and overlap trains, or is refused with the reason."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from forms import only_in_full
from launching import PROGRAMS, run_well
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

NETWORKS = {"mlp": "CartPole-v1", "cnn": "image_envs:Dot-v0", "minatar": "image_envs:SmallDot-v0"}
SHORT: dict[str, Any] = {
    "total_env_steps": 192,
    "num_envs": 6,
    "learning_starts": 96,
    "train_period": 12,
    "global_batch_size": 12,
    "hidden_sizes": [8],
    "evaluation_period": 0,
    "final_evaluation_episodes": 1,
    "progress": "off",
}
LEARNER_STEPS = (192 - 96) // 12
CELLS = [*itertools.product(("tensorflow", "native"), NETWORKS, (0, 1)), *itertools.product(["auto"], NETWORKS, [0])]


def _expected(how: str, learner: str, network: str) -> tuple[str, str]:
    """Returns the learner that trains, or "refused", and a part of the reason."""
    obstacle = "the network is not the MLP" if network != "mlp" else ""
    if not obstacle and how == "horovodrun --gloo":
        obstacle = "several ranks need an MPI launcher"
    if learner == "native" and obstacle:
        return "refused", obstacle
    return ("native" if learner != "tensorflow" and not obstacle else "tensorflow"), ""


@pytest.mark.parametrize(
    ("how", "ranks"),
    [
        ("python", 1),
        ("mpirun", 2),
        ("horovodrun --gloo", 2),
        pytest.param("mpirun", 3, marks=[only_in_full, pytest.mark.faults]),
        pytest.param("horovodrun --mpi", 2, marks=[only_in_full, pytest.mark.faults]),
        pytest.param("horovodrun --gloo", 3, marks=[only_in_full, pytest.mark.faults]),
    ],
)
def test_every_combination_trains_or_is_refused_with_the_reason(
    how: str, ranks: int, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    jobs, out = tmp_path / "jobs.json", tmp_path / "out.json"
    cells = [
        {"learner": learner, "network": network, "env": NETWORKS[network], "policy_lag": lag}
        for learner, network, lag in CELLS
    ]
    jobs.write_text(json.dumps([SHORT | cell for cell in cells]))
    arguments, program = (out, jobs, tmp_path), PROGRAMS / "combinations.py"
    if (how, ranks) in (("python", 1), ("mpirun", 2)):
        persistent_ranks.run_well(ranks, *arguments, program=program)
    else:
        run_well(how, ranks, *arguments, program=program)
    results = json.loads(out.read_text())
    for cell, (what, detail) in zip(cells, results, strict=True):
        expected, reason = _expected(how, str(cell["learner"]), str(cell["network"]))
        assert what == expected, (cell, what, detail)
        assert reason in detail if what == "refused" else detail == LEARNER_STEPS - bool(cell["policy_lag"]), cell
