"""A run that goes on from any of its checkpoints ends bit for bit where it would have ended without a stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import launched, read_metrics, run, run_well

from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.segments import read
from hvd_dqn.transition import Transition

pytestmark = pytest.mark.parallel

ENVIRONMENTS = {
    "CartPole": ("--env", "CartPole-v1", "--num-envs", "6"),
    "LunarLander": ("--env", "LunarLander-v3", "--num-envs", "5"),
    "maze": ("--env", "hvd_dqn/TreasureMaze-v0", "--num-envs", "4"),
    "images": ("--env", "image_envs:Dot-v0", "--num-envs", "4", "--backend", "numpy"),
    "in parts": ("--env", "CartPole-v1", "--num-envs", "6", "--hidden-sizes", "400", "400"),
}
"""In parts: each rank updates a part of parameters that they have in common, and rank 0 saves all of them."""
RUN = (
    *("--total-env-steps", "2400", "--learning-starts", "300", "--train-period", "4", "--global-batch-size", "16"),
    *("--hidden-sizes", "16", "--replay-capacity", "1500", "--target-update-period", "50", "--log-period", "250"),
    *("--evaluation-period", "1000", "--evaluation-episodes", "3", "--final-evaluation-episodes", "3"),
    *("--checkpoint-period", "400", "--keep-checkpoints", "100", "--name", "whole"),
)
"""The replay begins to drop its oldest at 1,500; log lines and evaluations lie between the checkpoints."""
CARTPOLE_SHAPES = ((4,), (), (), (), (), (4,))
CARTPOLE_DTYPES = (np.float32, np.int32, np.float32, np.bool_, np.bool_, np.float32)
OF_THE_CLOCK = ("unix_time", "seconds", "resident_mebibytes")


def _how(ranks: int) -> str:
    return "python" if ranks == 1 else "mpirun"


def _checkpoints(run_directory: Path) -> list[Path]:
    return sorted(path.parent for path in run_directory.glob("checkpoints/*/manifest.json"))


def _end(run_directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the last manifest (checksums of weights, optimizer, counters, generators, replay) and all metrics."""
    manifest = json.loads((_checkpoints(run_directory)[-1] / "manifest.json").read_text())
    lines = [
        {
            name: value
            for name, value in record.items()
            if name not in OF_THE_CLOCK and "_microseconds" not in name and "_per_second" not in name
        }
        for record in read_metrics(run_directory)
    ]
    return manifest, lines


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        *(("CartPole", 1), ("CartPole", 2), ("LunarLander", 2), ("in parts", 2), ("images", 2)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *(("LunarLander", 1), ("maze", 1), ("maze", 2)),
                *((environment, 3) for environment in ("CartPole", "LunarLander", "maze", "in parts")),
            )
        ),
    ],
)
def test_resumed_from_any_checkpoint_the_run_ends_bit_for_bit_where_it_ended(
    environment: str, ranks: int, tmp_path: Path
) -> None:
    """Before learning starts, in its middle, and after the replay has begun to drop its oldest."""
    run_well(_how(ranks), ranks, *RUN, *ENVIRONMENTS[environment], "--runs-dir", tmp_path)
    whole = next(tmp_path.glob("*/whole"))
    places = _checkpoints(whole)
    assert len(places) >= 6
    end = _end(whole)
    assert [record["kind"] for record in end[1]].count("evaluation") == 3
    for place in (places[0], places[2], places[-2]) if environment == "CartPole" else (places[3],):
        copy = tmp_path / f"from {place.name}"
        shutil.copytree(whole, copy)
        for later in _checkpoints(copy)[places.index(place) + 1 :]:
            shutil.rmtree(later)
        resumed = run_well(_how(ranks), ranks, "--resume", copy)
        assert f"resumed from the checkpoint at env step {int(place.name):,}" in resumed.output
        assert _end(copy) == end, place.name


def _stored(run_directory: Path) -> list[Transition]:
    """Returns what each rank held at the newest checkpoint, oldest first."""
    state = json.loads((_checkpoints(run_directory)[-1] / "state.json").read_text())
    blank = Transition(
        *(np.zeros((0, *shape), dtype) for shape, dtype in zip(CARTPOLE_SHAPES, CARTPOLE_DTYPES, strict=True))
    )
    ranks = [RankState.from_json(record) for record in state["ranks"]]
    held = [read(run_directory / "checkpoints" / "replay", rank.segments, blank) for rank in ranks]
    return [
        Transition(*(column[len(column) - rank.stored :] for column in columns))
        for rank, columns in zip(ranks, held, strict=True)
    ]


@pytest.mark.parametrize("ranks", [1, 3])
def test_another_number_of_ranks_shares_the_replay_out_anew(ranks: int, tmp_path: Path) -> None:
    """Every transition goes to one rank, as far as there is room, the newest first; learning does not wait."""
    run_well("mpirun", 2, *RUN, *ENVIRONMENTS["CartPole"], "--runs-dir", tmp_path)
    whole = next(tmp_path.glob("*/whole"))
    before = _stored(whole)
    assert [len(part.r_t) for part in before] == [750, 750]
    more = ("--total-env-steps", "2406", "--evaluation-period", "0")  # one iteration
    resumed = run_well(_how(ranks), ranks, "--resume", whole, *more)
    assert f"the replay of 1,500 transitions on 2 rank(s) was resharded: 1,500 on {ranks}" in resumed.output
    after = _stored(whole)
    assert len(after) == ranks
    counts = [len(part.r_t) for part in after]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 1500
    old, new = ({row.tobytes() for part in parts for row in part.s_tm1} for parts in (before, after))
    assert len(new - old) <= 6, "only the new iteration's transitions are new"
    assert len(old - new) <= 6, "only the oldest gave way"
    lines = read_metrics(whole, "training")
    assert lines[-1]["learner_steps"] > lines[-2]["learner_steps"]


def test_a_run_stopped_by_its_time_limit_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    """From half of the time limit on it stops at a checkpoint that the uninterrupted run makes as well."""
    command = (*RUN, *ENVIRONMENTS["CartPole"], "--checkpoint-period", "1200", "--resume", "auto")
    run_well("mpirun", 2, *command, "--runs-dir", tmp_path / "a")
    limit = ("--time-limit", "2:00", "--time-reserve-seconds", "120")  # asks at once, insists after a minute
    whole = next((tmp_path / "a").glob("*/whole"))
    codes = [run("mpirun", 2, *command, *limit, "--runs-dir", tmp_path / "b").code for _ in _checkpoints(whole)]
    assert codes == [75] * (len(codes) - 1) + [0], "each start but the last ends at a checkpoint"
    run_well("mpirun", 2, *command, *limit, "--runs-dir", tmp_path / "b")  # nothing is left to do but to evaluate
    parts = next((tmp_path / "b").glob("*/whole"))
    repeated = _end(parts)[1].pop()
    assert repeated["kind"] == "final_evaluation"
    assert _end(parts)[0] == _end(whole)[0]
    assert _end(parts)[1][:-1] == _end(whole)[1]
    assert repeated == _end(whole)[1][-1]


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_run_ends_where_it_would_have_ended(tmp_path: Path, injected: Any) -> None:
    """Kill -9 of a rank in the middle of the run, between two checkpoints."""
    longer = (*RUN, *ENVIRONMENTS["CartPole"], "--total-env-steps", "30000", "--evaluation-period", "4000")
    run_well("mpirun", 2, *longer, "--runs-dir", tmp_path / "a")
    with launched("mpirun", 2, *longer, "--runs-dir", tmp_path / "b") as job:
        job.wait_for("evaluation at env step 4,002")
        injected("rank killed by SIGKILL")
        os.kill(job.rank_pid(1), signal.SIGKILL)
        outcome = job.finish()
    assert outcome.code != 0
    killed = next((tmp_path / "b").glob("*/whole"))
    assert int(_checkpoints(killed)[-1].name) < 30000
    run_well("mpirun", 2, "--resume", killed)
    assert _end(killed) == _end(next((tmp_path / "a").glob("*/whole")))
