"""hvd-dqn evaluate plays the same episodes at any number of ranks, and refuses on all of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from launching import run, run_well

pytestmark = pytest.mark.parallel

COMMAND = Path(sys.executable).with_name("hvd-dqn")
SHORT = ("--total-env-steps", "400", "--learning-starts", "100", "--evaluation-period", "0", "--seed", "6")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run_well("python", 1, *SHORT, "--final-evaluation-episodes", "1", "--runs-dir", folder, "--name", "a")
    return folder / "CartPole-v1" / "a"


def test_the_returns_do_not_depend_on_the_ranks(trained: Path) -> None:
    found = []
    for how, ranks in (("python", 1), ("mpirun", 3), ("horovodrun --gloo", 2)):
        outcome = run_well(how, ranks, "evaluate", trained, "--episodes", "7", "--json", program=COMMAND)
        lines = [line[line.index("{") :] for line in outcome.output.splitlines() if '"returns"' in line]
        assert len(lines) == 1, outcome.output
        found.append(json.loads(lines[0]))
    assert found[0] == found[1] == found[2]


def test_a_checkpoint_that_is_not_there_ends_all_ranks(trained: Path) -> None:
    outcome = run("mpirun", 2, "evaluate", trained, "--checkpoint", "7", program=COMMAND)
    assert outcome.code == 2, outcome.output
    assert outcome.output.count("no checkpoint '7' in") == 1
    assert "Traceback" not in outcome.output
