"""One job under every launcher, twice the same, written by rank 0 alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import GENERAL, LEARNERS, PROGRAMS, launched, read_metrics, run_well, timeless_metrics
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

SHORT_RUN = (
    *("--total-env-steps", "1000", "--learning-starts", "200", "--log-period", "200", "--seed", "4"),
    *("--evaluation-period", "500", "--evaluation-episodes", "5", "--final-evaluation-episodes", "6"),
    *GENERAL,
)
EVERY_LAUNCH = [("python", 1), ("mpirun", 2), ("horovodrun --mpi", 2), ("horovodrun --gloo", 2)]
PHASES = ("collect", "sample", "transfer", "gradient", "allreduce", "apply", "bookkeeping")
PROFILE = {f"{phase}_microseconds_{statistic}" for phase in (*PHASES, "busy") for statistic in ("min", "median", "max")}
TRAINING_FIELDS = {
    *(
        "kind",
        "env_steps",
        "unix_time",
        "seconds",
        "learner_steps",
        "skipped_updates",
        "target_updates",
        "episodes",
        "mean_return",
    ),
    *(
        "mean_length",
        "learning_rate",
        "epsilon",
        "loss",
        "abs_td_error",
        "mean_q",
        "env_steps_per_second",
        "learner_steps_per_second",
    ),
    "resident_mebibytes",
} | PROFILE

Runs = Callable[[str, int], tuple[Path, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Returns run directory and output of the short run under a launcher; each is run once."""
    known: dict[tuple[str, int], tuple[Path, str]] = {}

    def under(how: str, ranks: int) -> tuple[Path, str]:
        if (how, ranks) not in known:
            folder = tmp_path_factory.mktemp("runs")
            outcome = run_well(how, ranks, *SHORT_RUN, "--runs-dir", folder, "--name", "short")
            known[how, ranks] = folder / "CartPole-v1" / "short", outcome.output
        return known[how, ranks]

    return under


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Returns the run directory of a second run under mpirun, and what each rank wrote, made or renamed."""
    folder = tmp_path_factory.mktemp("audited")
    arguments = (folder, folder / "runs", *SHORT_RUN, "--name", "short")
    run_well("mpirun", 2, *arguments, program=PROGRAMS / "audited_train.py")
    audits = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return folder / "runs" / "CartPole-v1" / "short", audits


def digests(run_directory: Path) -> dict[str, str]:
    """Returns the checksum of each file of weights, by checkpoint and name."""
    files = sorted(run_directory.glob("checkpoints/*/*.safetensors"))
    return {"/".join(file.parts[-2:]): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize(("how", "ranks"), EVERY_LAUNCH)
def test_the_job_runs_under_every_launcher(runs: Runs, how: str, ranks: int) -> None:
    """It ends well, says its sizes and its result once, and leaves the documented files."""
    run_directory, output = runs(how, ranks)
    assert output.count("Greedy evaluation of the best checkpoint") == 1
    assert output.count("hvd_dqn on CartPole-v1") == 1
    assert output.count("evaluation at env step 1,008") == 1
    controller = {"python": "none (one rank)", "horovodrun --gloo": "Gloo"}.get(how, "MPI")
    assert f"{ranks}, controller {controller}" in output
    config = json.loads((run_directory / "config.json").read_text())
    assert config["ranks"] == ranks
    assert config["config"]["total_env_steps"] == 1000
    assert config["config"]["seed"] == 4
    training = read_metrics(run_directory, "training")
    assert all(set(record) == TRAINING_FIELDS for record in training)
    assert [record["env_steps"] for record in training] == [208, 400, 608, 800, 1008]
    assert [record["learner_steps"] for record in training] == [8, 200, 408, 600, 808]
    assert [record["env_steps"] for record in read_metrics(run_directory, "evaluation")] == [512, 1008]
    assert [record["episodes"] for record in read_metrics(run_directory, "final_evaluation")] == [6]
    assert list(run_directory.glob("tensorboard/events.out.tfevents.*"))


def test_two_runs_with_the_same_seed_and_ranks_are_bitwise_equal(
    runs: Runs, audited: tuple[Path, list[dict[str, Any]]]
) -> None:
    """All checkpoints' weights and optimizer state, and all metrics but times and speeds, are the same."""
    first, second = runs("mpirun", 2)[0], audited[0]
    assert len(digests(first)) == 4
    assert digests(first) == digests(second)
    assert timeless_metrics(first) == timeless_metrics(second)


@pytest.mark.parametrize("how", ["horovodrun --mpi", "horovodrun --gloo"])
def test_the_launcher_does_not_change_the_result(runs: Runs, how: str) -> None:
    """With two ranks a sum has one order only: MPI and Gloo end in the same bits."""
    assert digests(runs(how, 2)[0]) == digests(runs("mpirun", 2)[0])
    assert timeless_metrics(runs(how, 2)[0]) == timeless_metrics(runs("mpirun", 2)[0])


def test_rank_0_writes_all_files_but_the_other_ranks_replays(audited: tuple[Path, list[dict[str, Any]]]) -> None:
    """Rank 1 makes nothing but its own segments and parts; every other file below the runs folder is rank 0's doing.

    TensorBoard's file is written outside Python's sight, but its name ends in its writer's process id.
    """
    run_directory, (root, other) = audited
    runs = run_directory.parents[1]
    replay = (run_directory / "checkpoints" / "replay").relative_to(runs)
    own = str(replay / "rank-00001-of-00002")
    elsewhere = {path for path in other["touched"] if not path.startswith(own)} - {str(replay), str(replay.parent)}
    parts = str(replay.parent / "parts-")
    assert all(path.startswith(parts) and path.count("rank-00001") == path.count("rank-") for path in elsewhere)
    assert not list(run_directory.rglob("parts-*"))
    files = [file for file in run_directory.rglob("*") if file.is_file()]
    events = [file for file in files if file.name.startswith("events.out.tfevents.")]
    assert [int(file.name.split(".")[-2]) for file in events] == [root["pid"]]
    rest = {str(file.relative_to(runs)) for file in files if file not in events}
    theirs = {path for path in rest if path.startswith(own)}
    assert theirs == {path for path in other["touched"] if path.endswith(".zst")}
    segments = {path for path in rest if path.endswith(".zst")}
    assert theirs < segments, "both ranks have segments"
    assert any(path.endswith("/manifest.json") for path in rest)
    assert rest - theirs <= set(root["touched"])


def test_runs_of_different_seeds_differ(runs: Runs, persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """The seed reaches weights and experience: without this the laws above could hold for nothing."""
    persistent_ranks.run_well(1, *SHORT_RUN, "--seed", "5", "--runs-dir", tmp_path, "--name", "short")
    other, first = tmp_path / "CartPole-v1" / "short", runs("python", 1)[0]
    assert timeless_metrics(first) != timeless_metrics(other)
    assert not set(digests(first).values()) & set(digests(other).values())


def test_a_rank_that_leaves_first_does_not_end_mpi_for_the_others() -> None:
    run_well("mpirun", 2, program=PROGRAMS / "leaving.py")


@pytest.mark.parametrize("how", ["mpirun", "horovodrun --mpi"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_the_ranks_of_one_host_listen_on_none_of_its_networks(how: str, learner: str, tmp_path: Path) -> None:
    endless = ("--total-env-steps", "100000000", "--learning-starts", "200", "--evaluation-period", "0")
    options = (*endless, "--log-period", "1000", "--learner", learner, "--runs-dir", tmp_path, "--name", "open")
    with launched(how, 2, *options) as job:
        metrics = tmp_path / "CartPole-v1" / "open" / "metrics.jsonl"
        job.wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 1)
        ranks = job.python_processes()
        assert sorted(ranks.values()) == [0, 1]
        assert {rank: _listens_on(pid) for pid, rank in ranks.items()} == {0: set(), 1: set()}


def _listens_on(pid: int) -> set[str]:
    """Returns the addresses on which a process waits for connections from other hosts, as the kernel writes them."""
    links = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.add(os.readlink(entry))
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    listening = {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in links}
    return {address for address in listening if not address.startswith(("0100007F:", f"{'0' * 24}01000000:"))}
