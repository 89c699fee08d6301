"""A run that goes on from any of its checkpoints ends bit for bit where it would have ended without a stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import (
    GENERAL,
    LEARNERS,
    checkpoints,
    launched,
    newest_checkpoint,
    read_metrics,
    run_well,
    timeless_metrics,
)
from persistent_ranks import PersistentRanks

from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.segments import read
from hvd_dqn.transition import Transition, TransitionForm

pytestmark = pytest.mark.parallel

LOCAL = ("--env", "CartPole-v1", "--num-envs", "6", "--strategy", "local", "--sync-period", "7")
ENVIRONMENTS = {
    "CartPole": ("--env", "CartPole-v1", "--num-envs", "6"),
    "LunarLander": ("--env", "LunarLander-v3", "--num-envs", "5"),
    "maze": ("--env", "hvd_dqn/TreasureMaze-v0", "--num-envs", "4"),
    "images": ("--env", "image_envs:Dot-v0", "--num-envs", "4"),
    "frames": ("--env", "image_envs:StackedDot-v0", "--num-envs", "4", "--n-step", "3", "--replay", "prioritized"),
    "local": LOCAL,
    "local, prioritized": (*LOCAL, "--replay", "prioritized"),
    "joints": (
        *("--env", "Reacher-v5", "--action-bins", "3", "--algorithm", "decqn", "--double", "--num-envs", "6"),
        *("--n-step", "3", "--replay", "prioritized"),
    ),
}
RUN = (
    *("--total-env-steps", "2400", "--learning-starts", "300", "--train-period", "4", "--global-batch-size", "16"),
    *("--hidden-sizes", "16", "--replay-capacity", "1500", "--target-update-period", "50", "--log-period", "250"),
    *("--evaluation-period", "1000", "--evaluation-episodes", "3", "--final-evaluation-episodes", "3"),
    *("--checkpoint-period", "400", "--keep-checkpoints", "100", "--name", "whole"),
)
"""The replay begins to drop its oldest at 1,500; log lines and evaluations lie between the checkpoints."""
FORMS = {
    "CartPole": TransitionForm((4,), np.dtype(np.float32)),
    "frames": TransitionForm((60, 60, 4), np.dtype(np.uint8)),
    "joints": TransitionForm((10,), np.dtype(np.float32), (2,)),
}

MakeRun = Callable[[str, int, str], Path]


def _end(run_directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the last manifest (checksums of weights, optimizer, counters, generators, replay) and all metrics."""
    manifest = json.loads((checkpoints(run_directory)[-1] / "manifest.json").read_text())
    return manifest, timeless_metrics(run_directory)


@pytest.fixture(scope="module")
def whole_run(persistent_ranks: PersistentRanks, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Returns the directory of an uninterrupted run by environment, ranks and learner; each is run once."""
    known: dict[tuple[str, int, str], Path] = {}

    def of(environment: str, ranks: int, learner: str) -> Path:
        case = environment, ranks, learner
        if case not in known:
            folder = tmp_path_factory.mktemp("whole")
            options: list[str | Path] = [*RUN, *ENVIRONMENTS[environment], *LEARNERS[learner], "--runs-dir", folder]
            persistent_ranks.run_well(ranks, *options)
            (known[case],) = folder.glob("*/whole")
        return known[case]

    return of


def _copy_up_to(whole: Path, place: Path, folder: Path) -> Path:
    """Returns a copy of a run as it was when one of its checkpoints was the newest."""
    copy = shutil.copytree(whole, folder / f"from {place.name}")
    for later in checkpoints(copy)[checkpoints(whole).index(place) + 1 :]:
        shutil.rmtree(later)
    return copy


@pytest.mark.parametrize(
    ("environment", "ranks", "learner"),
    [
        *(("CartPole", 1, "tensorflow"), ("CartPole", 2, "tensorflow"), ("CartPole", 3, "tensorflow")),
        ("CartPole", 2, "native"),
        *(("local", 2, "native"), ("local, prioritized", 2, "tensorflow")),
        *(("LunarLander", 2, "tensorflow"), ("images", 2, "tensorflow"), ("frames", 2, "tensorflow")),
        *(("joints", 1, "tensorflow"), ("joints", 2, "tensorflow")),
        *(
            pytest.param(*case, "tensorflow", marks=pytest.mark.slow)
            for case in (("LunarLander", 1), ("maze", 1), ("maze", 2), ("LunarLander", 3), ("maze", 3))
        ),
    ],
)
def test_resumed_from_any_checkpoint_the_run_ends_bit_for_bit_where_it_ended(
    environment: str,
    ranks: int,
    learner: str,
    whole_run: MakeRun,
    persistent_ranks: PersistentRanks,
    tmp_path: Path,
) -> None:
    """Before learning starts, in its middle, and after the replay has begun to drop its oldest."""
    whole = whole_run(environment, ranks, learner)
    places, end = checkpoints(whole), _end(whole)
    assert len(places) >= 6
    assert [record["kind"] for record in end[1]].count("evaluation") == 3
    for place in (places[0], places[2], places[-2]) if environment == "CartPole" else (places[3],):
        copy = _copy_up_to(whole, place, tmp_path)
        resumed = persistent_ranks.run_well(ranks, "--resume", copy)
        assert f"resumed from the checkpoint at env step {int(place.name):,}" in resumed.output
        assert _end(copy) == end, place.name


@pytest.mark.parametrize("learner", ["tensorflow", pytest.param("native", marks=pytest.mark.slow)])
def test_processes_that_know_nothing_of_the_run_end_it_bit_for_bit_where_it_ended(
    learner: str, whole_run: MakeRun, tmp_path: Path
) -> None:
    """A launch of its own goes on from the middle: nothing that a resume needs is in the memory of the process."""
    whole = whole_run("CartPole", 2, learner)
    copy = _copy_up_to(whole, checkpoints(whole)[3], tmp_path)
    run_well("mpirun", 2, "--resume", copy)
    assert _end(copy) == _end(whole)


def _stored(run_directory: Path, environment: str) -> list[Transition]:
    """Returns what each rank held at the newest checkpoint, oldest first."""
    state = json.loads((newest_checkpoint(run_directory) / "state.json").read_text())
    blank = FORMS[environment].blank(0)
    ranks = [RankState.from_json(record) for record in state["ranks"]]
    folder = run_directory / "checkpoints" / "replay"
    parts = [[read(folder, segment, blank).whole() for segment in rank.segments] for rank in ranks]
    held = [Transition(*map(np.concatenate, zip(blank, *part, strict=True))) for part in parts]
    return [
        Transition(*(column[len(column) - rank.stored :] for column in columns))
        for rank, columns in zip(ranks, held, strict=True)
    ]


@pytest.mark.parametrize(("environment", "ranks"), [("CartPole", 1), ("CartPole", 3), ("frames", 3), ("joints", 3)])
def test_another_number_of_ranks_shares_the_replay_out_anew(
    environment: str, ranks: int, whole_run: MakeRun, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Every transition goes to one rank, as far as there is room, the newest first; learning does not wait."""
    whole = shutil.copytree(whole_run(environment, 2, "tensorflow"), tmp_path / "copy")
    before = _stored(whole, environment)
    assert [len(part.r_t) for part in before] == [750, 750]
    more = ("--total-env-steps", "2406", "--evaluation-period", "0")  # one iteration
    resumed = persistent_ranks.run_well(ranks, "--resume", whole, *more)
    assert f"the replay of 1,500 transitions on 2 rank(s) was resharded: 1,500 on {ranks}" in resumed.output
    after = _stored(whole, environment)
    assert len(after) == ranks
    counts = [len(part.r_t) for part in after]
    assert max(counts) - min(counts) <= 1
    assert sum(counts) == 1500
    old, new = (
        {s_tm1.tobytes() + s_t.tobytes() for part in parts for s_tm1, s_t in zip(part.s_tm1, part.s_t, strict=True)}
        for parts in (before, after)
    )
    assert len(new - old) <= 6, "only the new iteration's transitions are new"
    assert len(old - new) <= 6, "only the oldest gave way"
    lines = read_metrics(whole, "training")
    assert lines[-1]["learner_steps"] > lines[-2]["learner_steps"]


def test_a_run_stopped_by_its_time_limit_ends_where_it_would_have_ended(
    persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """From half of the time limit on it stops at a checkpoint that the uninterrupted run makes as well."""
    command = (*RUN, *ENVIRONMENTS["CartPole"], *GENERAL, "--checkpoint-period", "1200", "--resume", "auto")
    persistent_ranks.run_well(2, *command, "--runs-dir", tmp_path / "a")
    limit = ("--time-limit", "20:00", "--time-reserve-seconds", "1200")  # asks at once, insists after ten minutes
    whole = next((tmp_path / "a").glob("*/whole"))
    limited: list[str | Path] = [*command, *limit, "--runs-dir", tmp_path / "b"]
    codes = [persistent_ranks.run(2, *limited).code for _ in checkpoints(whole)]
    assert codes == [75] * (len(codes) - 1) + [0], "each start but the last ends at a checkpoint"
    persistent_ranks.run_well(2, *limited)  # nothing is left to do but to evaluate
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
    longer = (*RUN, *ENVIRONMENTS["CartPole"], *GENERAL, "--total-env-steps", "30000", "--evaluation-period", "4000")
    run_well("mpirun", 2, *longer, "--runs-dir", tmp_path / "a")
    with launched("mpirun", 2, *longer, "--runs-dir", tmp_path / "b") as job:
        job.wait_for("evaluation at env step 4,002")
        injected("rank killed by SIGKILL")
        os.kill(job.rank_pid(1), signal.SIGKILL)
        outcome = job.finish()
    assert outcome.code != 0
    killed = next((tmp_path / "b").glob("*/whole"))
    assert int(newest_checkpoint(killed).name) < 30000
    run_well("mpirun", 2, "--resume", killed)
    assert _end(killed) == _end(next((tmp_path / "a").glob("*/whole")))
