"""Collectives give the same on all ranks, the learner is chosen for all of them, and overlap changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from launching import LEARNERS, PROGRAMS, newest_checkpoint, read_metrics, run, run_well
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

SHORT_RUN = (
    *("--total-env-steps", "800", "--learning-starts", "200", "--train-period", "4", "--log-period", "400"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "2", "--seed", "6"),
)


def _weights(folder: Path, *arguments: str) -> str:
    """Runs the short run on one rank and returns its learner's digest."""
    name = f"r{len(list(folder.glob('*/*')))}"
    run_well("python", 1, *SHORT_RUN, *arguments, "--runs-dir", folder, "--name", name)
    return _digest(folder, name)


def _digest(folder: Path, name: str) -> str:
    return hashlib.sha256(
        (newest_checkpoint(*folder.glob(f"*/{name}")) / "learner.safetensors").read_bytes()
    ).hexdigest()


@pytest.mark.parametrize(
    ("how", "ranks", "names"),
    [("mpirun", 3, ("MPI", "MPI with Horovod", "Horovod")), ("horovodrun --gloo", 2, ("Horovod",))],
)
def test_all_communicators_give_the_same(tmp_path: Path, how: str, ranks: int, names: tuple[str, ...]) -> None:
    """Sums in and outside of graphs, broadcasts, gathered texts; bit for bit the same on all ranks."""
    run_well(how, ranks, tmp_path, program=PROGRAMS / "collectives.py")
    seen = {name: [dict(np.load(tmp_path / f"{name}-rank{rank}.npz")) for rank in range(ranks)] for name in names}
    own = [values["own_after_all"].astype(np.float64) for values in seen["Horovod"]]
    for values in seen.values():
        reference = values[0]
        for other in values[1:]:
            for name in reference.keys() - {"own_after_all", "exchanged"}:
                np.testing.assert_array_equal(other[name], reference[name], err_msg=name)
        np.testing.assert_allclose(reference["sum"], sum(own), rtol=1e-4, atol=1.0)
        np.testing.assert_allclose(reference["sum_of_doubles"], sum(own)[::2])
        np.testing.assert_allclose(reference["sum_of_a_square"], sum(own)[:9].reshape(3, 3).T, rtol=1e-4, atol=1.0)
        if "graph" in reference:
            np.testing.assert_allclose(reference["graph"], ranks**2 * sum(own) / 8, rtol=1e-3, atol=8.0)
        assert "graph" in seen["Horovod"][0]
        for name in ("broadcast_array", "broadcast_tensor"):
            np.testing.assert_array_equal(reference[name], own[0].astype(np.float32))
            assert np.array_equal(np.signbit(reference[name]), np.signbit(own[0])), name
        for rank, other in enumerate(values):
            expected = [[sender, rank, 7] for sender in range(ranks) for _ in range(sender + 2 * rank)]
            assert other["exchanged"].tolist() == expected
        gathered, sent = json.loads(reference["json"].tobytes())
        assert [part["text"] for part in gathered] == ["ü" * rank for rank in range(ranks)]
        assert sent == [0, "x"]
    if how == "mpirun":
        for rank in range(ranks):  # Horovod's thread, which spins while it waits, leaves the core to what computes
            *others, horovod = sorted(json.loads((tmp_path / f"niceness-rank{rank}.json").read_text()))
            assert (set(others), horovod) == ({others[0]}, min(others[0] + 10, 19))


def test_the_choice_of_the_learner_is_made_for_all_ranks_recorded_printed_and_kept(
    persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Rank 1 has no native library: all ranks take TensorFlow, and a resume where all have one stays with it."""
    options = ("--runs-dir", tmp_path, "--name", "r")
    lacking = {"HVD_DQN_TEST_WITHOUT_LIBRARY": "1"}
    outcome = run_well("mpirun", 2, *SHORT_RUN, *options, program=PROGRAMS / "without_library.py", environ=lacking)
    assert "learner                      tensorflow" in outcome.output
    config = json.loads((tmp_path / "CartPole-v1" / "r" / "config.json").read_text())["config"]
    assert config["learner"] == "tensorflow"
    more = ("--resume", tmp_path / "CartPole-v1" / "r", "--total-env-steps", "1600")
    assert "learner                      tensorflow" in persistent_ranks.run_well(2, *more).output


def test_a_rank_that_cannot_use_the_learner_asked_for_ends_the_job_on_all(tmp_path: Path) -> None:
    options = (*SHORT_RUN, "--learner", "native", "--runs-dir", tmp_path)
    lacking = {"HVD_DQN_TEST_WITHOUT_LIBRARY": "1"}
    outcome = run("mpirun", 2, *options, program=PROGRAMS / "without_library.py", environ=lacking)
    assert outcome.code == 2
    assert outcome.output.count("on rank 1: the compiled library of the native learner is missing") == 1
    assert "--learner tensorflow" in outcome.output
    assert not list(tmp_path.iterdir())


def test_the_native_learner_is_refused_where_gloo_has_started_the_ranks(tmp_path: Path) -> None:
    outcome = run("horovodrun --gloo", 2, *SHORT_RUN, "--learner", "native", "--runs-dir", tmp_path)
    ends = re.search(r"Process [01] exit with status code 2\.", outcome.output)  # after a barrier: either may be first
    assert ends, outcome.output
    assert outcome.output.count("several ranks need an MPI launcher") == 1
    assert "Traceback" not in outcome.output[: ends.start()]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared out")
@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun --mpi", "horovodrun --gloo"])
def test_two_ranks_never_share_a_core(tmp_path: Path, launcher: str) -> None:
    run_well(launcher, 2, tmp_path, program=PROGRAMS / "placement.py")
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert not set(first["cores"]) & set(second["cores"])
    assert [len(rank["cores"]) for rank in (first, second)] == [int(rank["threads"]) for rank in (first, second)]


def test_a_lagging_policy_is_the_same_with_and_without_a_core_for_it(tmp_path: Path) -> None:
    """With one thread per rank learning runs inline, with two it overlaps."""
    settings = ("--policy-lag", "1", "--learner", "tensorflow", "--train-period", "2")
    inline = _weights(tmp_path, *settings, "--threads-per-rank", "1")
    beside = _weights(tmp_path, *settings, "--threads-per-rank", "2")
    assert inline == beside
    assert inline != _weights(tmp_path, *settings[2:], "--threads-per-rank", "1")


def test_a_lagging_policy_works_on_several_ranks(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    for name in ("first", "again"):
        persistent_ranks.run_well(2, *SHORT_RUN, "--policy-lag", "1", "--runs-dir", tmp_path, "--name", name)
    assert _digest(tmp_path, "first") == _digest(tmp_path, "again")


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_rank_leaves_a_trace_and_horovod_its_timeline(tmp_path: Path, learner: str) -> None:
    """The timeline shows the allreduces of the general learner; the native one does without Horovod."""
    run_well("mpirun", 2, *SHORT_RUN, "--profile", "--learner", learner, "--runs-dir", tmp_path, "--name", "p")
    folder = tmp_path / "CartPole-v1" / "p" / "profile"
    for rank in range(2):
        events = json.loads((folder / f"rank-{rank:05d}.trace.json").read_text())["traceEvents"]
        phases = {event["name"] for event in events if event["ph"] == "X"}
        assert {"collect", "sample", "gradient", "allreduce"} <= phases
        assert {event["pid"] for event in events} == {rank}
        assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")
    timeline = folder / "horovod.timeline.json"
    assert (timeline.exists() and "ALLREDUCE" in timeline.read_text()) == (learner == "tensorflow")
    last = [line for line in read_metrics(folder.parent) if line["kind"] == "training"][-1]
    assert 0 < last["gradient_microseconds_min"] <= last["gradient_microseconds_max"]
