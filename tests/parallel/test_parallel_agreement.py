"""The ranks hold one state, notice when they do not, and each collects on its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launching import PROGRAMS, TRAIN, run
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel


def assembled_job(persistent_ranks: PersistentRanks, ranks: int, folder: Path) -> dict[str, Any]:
    """Returns what the ranks of assembled_job.py said."""
    out = folder / f"said{ranks}.json"
    persistent_ranks.run_well(ranks, out, folder / "runs", program=PROGRAMS / "assembled_job.py")
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def three(persistent_ranks: PersistentRanks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns what three ranks said."""
    return assembled_job(persistent_ranks, 3, tmp_path_factory.mktemp("three"))


def test_rank_0_gives_weights_target_and_optimizer_state_to_all_at_the_start(three: dict[str, Any]) -> None:
    """A rank that starts with other weights ends up with rank 0's."""
    assert all("rank(s) 2 differ" in text for text in three["before_the_broadcast"])
    first, *others = three["after_the_broadcast"]
    assert others == [first, first]


def test_weights_target_and_optimizer_state_are_bitwise_equal_on_all_ranks_after_training(
    three: dict[str, Any],
) -> None:
    """All vectors of the learner have one digest, and training has moved them."""
    first, *others = three["after_training"]
    assert set(first) == {"online", "target", "optimizer/momentum", "optimizer/velocity"}
    assert others == [first, first]
    at_start = three["after_the_broadcast"][0]
    assert all(first[name] != at_start[name] for name in first)


def test_counters_are_equal_on_all_ranks(three: dict[str, Any]) -> None:
    """Everything that steers the job is the same everywhere, episodes included."""
    first, *others = three["counters"]
    assert others == [first, first]
    assert (first["env_steps"], first["learner_steps"], first["target_updates"]) == (960, 120, 3)
    assert first["episodes"] == sum(three["episodes_stored"]) > 10


def test_ranks_collect_different_transitions(three: dict[str, Any]) -> None:
    """No two ranks, and no two environments, start alike or store the same."""
    for column in zip(*three["transitions"], strict=True):
        assert len(set(column)) == 3
    starts = [tuple(start) for rank in three["first_observations"] for start in rank]
    assert len(starts) == len(set(starts)) == 6


@pytest.mark.parametrize("what", ["online", "target", "slots"])
def test_a_difference_between_ranks_is_named_on_all_of_them(three: dict[str, Any], what: str) -> None:
    """One number changed in its last bits on rank 2 of 3 stops the job on every rank, naming rank 2."""
    assert len(three[f"{what}_spoilt"]) == 3
    assert all("the weights of rank(s) 2 differ" in text for text in three[f"{what}_spoilt"])
    assert three["all_restored"] == ["", "", ""]


def test_a_corrupted_target_is_repaired_by_the_next_target_sync(three: dict[str, Any]) -> None:
    """Rank 0's online network, broadcast, replaces whatever a rank held as its target."""
    spoilt = [digests["target"] for digests in three["target_spoilt_again"]]
    assert spoilt[2] != spoilt[0] == spoilt[1]
    assert three["target_updates_meanwhile"] >= 1
    first, *others = three["after_the_target_sync"]
    assert others == [first, first]


def test_ranks_of_different_code_show_both_sides(three: dict[str, Any]) -> None:
    """The odd rank is named on all ranks, with its value and rank 0's; what agrees is not listed."""
    assert len(set(three["other_code"])) == 1
    assert "code: 'aaaa' on rank 0, 'bbbb' on rank 2" in three["other_code"][0]
    assert "seed" not in three["other_code"][0]


def test_evaluation_returns_do_not_depend_on_the_number_of_ranks(
    three: dict[str, Any], persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """The same weights and episode numbers give the same returns, predicted values and discounted returns, in order."""
    one, two = (assembled_job(persistent_ranks, ranks, tmp_path) for ranks in (1, 2))
    reference = one["returns"][0]
    assert len(reference) == 13
    assert len(set(reference)) > 3
    for said in (two, three):
        assert said["returns"] == [reference] * said["ranks"]
        assert said["values"] == [one["values"][0]] * said["ranks"]


def test_ranks_with_another_configuration_or_code_refuse_to_start(
    persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Rank 1 is started with another seed and another train.py: both sides are shown once, exit code 2."""
    edited = tmp_path / "train.py"
    edited.write_text(TRAIN.read_text() + "\n# edited on one host\n")
    arguments = ("1", edited, "--seed 11", TRAIN, "--runs-dir", tmp_path / "runs")
    outcome = persistent_ranks.run(2, *arguments, program=PROGRAMS / "rank_arguments.py")
    assert outcome.code == 2, outcome.output
    assert outcome.output.count("the ranks do not run the same job") == 1
    assert "seed: 0 on rank 0, 11 on rank 1" in outcome.output
    assert "code: '" in outcome.output
    assert "Traceback" not in outcome.output
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_one_ranks_command_ends_all_ranks(tmp_path: Path) -> None:
    """Rank 1 alone mistypes an option: it says so, and rank 0, which waits for it, ends too."""
    arguments = ("1", TRAIN, "--sead 11", TRAIN, "--runs-dir", tmp_path / "runs")
    outcome = run("mpirun", 2, *arguments, program=PROGRAMS / "rank_arguments.py")
    assert outcome.code == 2, outcome.output
    assert "--sead" in outcome.output
    assert "--seed" in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize(
    ("rank", "place"), [(1, "hvd_dqn.replay.ring:RingReplay"), (0, "hvd_dqn.run.metrics:DiskMetrics")]
)
def test_an_unexpected_error_of_one_rank_ends_all_at_once_and_is_named(
    persistent_ranks: PersistentRanks, rank: int, place: str, tmp_path: Path
) -> None:
    """Where each rank acts for itself, and where rank 0 acts for all; no rank waits for a time limit."""
    arguments = (str(rank), place, "--runs-dir", tmp_path, "--learner", "tensorflow")
    outcome = persistent_ranks.run(2, *arguments, program=PROGRAMS / "failing_train.py", seconds=20.0)
    assert outcome.code == 1, outcome.output
    assert outcome.output.count(f"rank {rank}: unexpected ZeroDivisionError('a mistake in the code')") == 1
    assert outcome.output.count("Traceback (most recent call last)") == 1
    assert "failing_train.py" in outcome.output
