"""Ranks that come and go under Horovod's elastic driver, on this machine: each of its names is a host to the driver."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nodes
import pytest
from launching import MARK, ROOT, Launch, environment_of_ranks, newest_checkpoint, read_metrics, run_well

pytestmark = pytest.mark.parallel

HOSTS = ("localhost", "127.0.0.1", "127.1")
TOTAL, LOG_PERIOD, SNAPSHOT_PERIOD, NUM_ENVS = 8_000, 500, 100, 4
JOB = (
    *("--env", "slow_cartpole:SlowCartPole-v1", "--num-envs", str(NUM_ENVS), "--train-period", "4"),
    *("--learning-starts", "400", "--replay-capacity", "4000", "--log-period", str(LOG_PERIOD)),
    *("--checkpoint-period", "2000", "--evaluation-period", "4000", "--evaluation-episodes", "2"),
    *("--final-evaluation-episodes", "2", "--name", "elastic"),
)


@contextlib.contextmanager
def elastic(
    folder: Path, *arguments: str | Path, options: tuple[str, ...] = (), inside: Sequence[str] = ()
) -> Iterator[Launch]:
    """Starts launch/elastic.sh on the hosts of folder/hosts, inside one of them, for the time of a with-block."""
    script = [str(ROOT / "launch" / "elastic.sh"), "--hosts", str(folder / "hosts"), "-np", "2", "--max-np", "4"]
    waits = ["-x", MARK, "--blacklist-cooldown-range", "2", "4", "--gloo-timeout-seconds", "60", *options]
    job = [*JOB, "--runs-dir", folder, *arguments]
    launch = Launch([*inside, *script, *waits, "--", *map(str, job)], environment_of_ranks())
    try:
        yield launch
    finally:
        launch.end()


def write_hosts(folder: Path, *names: str) -> None:
    """Changes the hosts in one step, as the driver may read them at any time."""
    (folder / "new").write_text("".join(f"{name}:1\n" for name in names))
    (folder / "new").rename(folder / "hosts")


def trained_to(folder: Path) -> int:
    """Returns the env steps of the last training line."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(read_metrics(_run_directory(folder), "training")[-1]["env_steps"])
    return 0


def _run_directory(folder: Path) -> Path:
    (directory,) = folder.glob("*/elastic")
    return directory


def check_the_curve(folder: Path, total: int = TOTAL) -> list[dict[str, Any]]:
    """Checks that the metrics have neither gaps nor repetitions; returns what they say of the ranks' changes.

    The driver may tell twice of one change; then the ranks meet for nothing, and that is left out.
    """
    directory = _run_directory(folder)
    steps = [record["env_steps"] for record in read_metrics(directory, "training")]
    assert steps == list(range(LOG_PERIOD, total + 1, LOG_PERIOD))
    assert [record["env_steps"] for record in read_metrics(directory, "evaluation")] == list(
        range(4000, total + 1, 4000)
    )
    records = read_metrics(directory)
    assert records[-1]["kind"] == "final_evaluation"
    steps = [record["env_steps"] for record in records]
    assert steps == sorted(steps)
    seconds = [record["seconds"] for record in records[:-1]]
    assert seconds == sorted(seconds)
    return [record for record in records if record["kind"] == "ranks" and record["left"] + record["came"] > 0]


def stored_on_ranks(directory: Path) -> list[int]:
    """Returns how many transitions each rank held at the newest checkpoint."""
    state = json.loads((newest_checkpoint(directory) / "state.json").read_text())
    return [rank["stored"] for rank in state["ranks"]]


@pytest.mark.faults
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_rank_is_survived_and_replaced(tmp_path: Path, victim: int) -> None:
    write_hosts(tmp_path, *HOSTS[:2])
    period = ("--snapshot-period", str(SNAPSHOT_PERIOD), "--total-env-steps", str(TOTAL))
    with elastic(tmp_path, *period) as job:
        job.wait_until(lambda: trained_to(tmp_path) >= 3 * LOG_PERIOD, 120.0)
        os.kill(job.rank_pid(victim), signal.SIGKILL)
        job.wait_for("the ranks have changed: 1 now, 2 before", 60.0)
        job.wait_for("the ranks have changed: 2 now, 1 before", 120.0)
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert "Traceback" not in outcome.output
    assert "another job is using" not in outcome.output
    lost, came = check_the_curve(tmp_path)
    assert (lost["ranks"], lost["left"], lost["came"]) == (1, 1, 0)
    assert (came["ranks"], came["left"], came["came"]) == (2, 0, 1)
    assert lost["rolled_back_env_steps"] <= SNAPSHOT_PERIOD + NUM_ENVS
    assert came["rolled_back_env_steps"] == 0, "a newcomer joins at a snapshot"
    assert lost["transitions_kept"] > 0.4 * (lost["env_steps"] - LOG_PERIOD), "the rank that stayed kept its replay"
    assert lost["transitions_moved"] == 0
    assert came["transitions_kept"] > lost["transitions_kept"]
    assert came["transitions_moved"] == came["transitions_kept"] // 2, "the newcomer has its share"
    first, second = stored_on_ranks(_run_directory(tmp_path))
    assert first == second == 2000


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_all_that_are_left_go_on_at_once(tmp_path: Path, victim: int) -> None:
    """A rank may wait for one that lives and has noticed the loss, not for the lost one."""
    write_hosts(tmp_path, *HOSTS)
    with elastic(tmp_path, "--total-env-steps", "4000", options=("-np", "3")) as job:
        job.wait_until(lambda: trained_to(tmp_path) >= 2 * LOG_PERIOD, 120.0)
        os.kill(job.rank_pid(victim), signal.SIGKILL)
        job.wait_for("the ranks have changed: 2 now, 3 before", 20.0)
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert check_the_curve(tmp_path, 4000)[0]["left"] == 1


@pytest.mark.slow
def test_a_rank_that_dies_while_it_starts_costs_time_alone(tmp_path: Path) -> None:
    """The others wait for it as long as Gloo would, go on without it, and its host has another chance later."""
    write_hosts(tmp_path, *HOSTS[:2])
    total = 12_000
    patience = ("--gloo-timeout-seconds", "20")
    with elastic(tmp_path, "--total-env-steps", str(total), options=patience) as job:
        job.wait_until(lambda: trained_to(tmp_path) >= 3 * LOG_PERIOD, 120.0)
        before = set(job.python_processes())
        os.kill(job.rank_pid(1), signal.SIGKILL)
        job.wait_until(lambda: bool(set(job.python_processes()) - before), 60.0)
        (newcomer,) = set(job.python_processes()) - before
        os.kill(newcomer, signal.SIGKILL)
        job.wait_for("the ranks have changed: 1 now, 1 before", 60.0)
        job.wait_for("the ranks have changed: 2 now, 1 before", 120.0)
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    lost, came = check_the_curve(tmp_path, total)
    assert (lost["ranks"], lost["left"], lost["came"]) == (1, 1, 0)
    assert (came["ranks"], came["left"], came["came"]) == (2, 0, 1)


@pytest.mark.slow
def test_a_new_rank_that_cannot_take_part_leaves_alone(tmp_path: Path) -> None:
    """Two environments cannot be shared out over three ranks."""
    write_hosts(tmp_path, *HOSTS[:2])
    total = 4000
    with elastic(tmp_path, "--total-env-steps", str(total), "--num-envs", "2") as job:
        job.wait_until(lambda: trained_to(tmp_path) >= 2 * LOG_PERIOD, 120.0)
        write_hosts(tmp_path, *HOSTS)
        job.wait_for("this new rank exits", 60.0)
        write_hosts(tmp_path, *HOSTS[:2])
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert "--num-envs 2 is less than one for each of 3 ranks" in outcome.output
    assert check_the_curve(tmp_path, total) == []


@pytest.mark.slow
def test_hosts_that_go_and_come_by_the_discovery_are_followed(tmp_path: Path) -> None:
    """One host goes; then two come, of which one was there before."""
    write_hosts(tmp_path, *HOSTS[:2])
    with elastic(tmp_path, "--total-env-steps", str(TOTAL)) as job:
        job.wait_until(lambda: trained_to(tmp_path) >= 3 * LOG_PERIOD, 120.0)
        write_hosts(tmp_path, HOSTS[1])
        job.wait_for("the ranks have changed: 1 now, 2 before", 60.0)
        write_hosts(tmp_path, *HOSTS)
        job.wait_for("the ranks have changed: 3 now, 1 before", 120.0)
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert "was removed from the job; its rank exits" in outcome.output
    went, came = check_the_curve(tmp_path)
    assert (went["left"], went["came"], went["rolled_back_env_steps"]) == (1, 0, 0)
    assert (came["left"], came["came"], came["rolled_back_env_steps"]) == (0, 2, 0)
    third = came["transitions_kept"] / 3
    assert abs(came["transitions_moved"] - 2 * third) < 2
    assert max(stored_on_ranks(_run_directory(tmp_path))) == 1334
    said = re.search(r"a snapshot takes [\d.]+ ms; one every [\d,]+ env steps: ([\d.]+)% of the time", outcome.output)
    assert said is not None
    assert float(said[1]) <= 1.0
    for line in read_metrics(_run_directory(tmp_path), "training"):
        share = line["snapshot_milliseconds"] / 1e3 * line["env_steps_per_second"] / line["snapshot_period"]
        assert share <= 0.02, line


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "unplugged"])
def test_a_host_that_is_lost_is_replaced_by_another(tmp_path: Path, how: str) -> None:
    """Another host, that was not there before, takes its part. An unplugged host closes no connection."""
    if (reason := nodes.why_not()) is not None:
        pytest.skip(reason)
    with nodes.nodes(tmp_path / "nodes", 3) as hosts:
        write_hosts(tmp_path, "node1", "node2")
        on_cards = ("--network-interfaces", "eth0", "--gloo-timeout-seconds", "20")
        with elastic(tmp_path, "--total-env-steps", str(TOTAL), options=on_cards, inside=hosts.inside(1)) as job:
            job.wait_until(lambda: trained_to(tmp_path) >= 3 * LOG_PERIOD, 120.0)
            (hosts.kill if how == "killed" else hosts.unplug)(2)
            job.wait_for("the ranks have changed: 1 now, 2 before", 90.0)
            write_hosts(tmp_path, "node1", "node2", "node3")
            job.wait_for("the ranks have changed: 2 now, 1 before", 120.0)
            outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert "lost: node2 (process" in outcome.output
    assert "joined: node3 (process" in outcome.output
    lost, came = check_the_curve(tmp_path)
    assert (lost["left"], lost["came"]) == (1, 0)
    assert (came["left"], came["came"], came["rolled_back_env_steps"]) == (0, 1, 0)
    assert came["transitions_moved"] == came["transitions_kept"] // 2


def test_transitions_are_resharded_whole_and_of_all_ages(tmp_path: Path) -> None:
    program = ROOT / "tests" / "parallel" / "programs" / "resharded.py"
    run_well("horovodrun --gloo", 3, tmp_path / "out.json", program=program)
    parts = json.loads((tmp_path / "out.json").read_text())
    held = [part["numbers"] for part in parts]
    assert [len(numbers) for numbers in held] == [467, 467, 466]
    assert sorted(number for numbers in held for number in numbers) == [*range(10_000, 11_000), *range(20_000, 20_400)]
    assert all(part["same"] for part in parts)
    assert {part["moved"] for part in parts} == {533}
    assert parts[0]["beats"] > 1, "it took several exchanges"
    for numbers in held:
        age = [(10_999 if number < 20_000 else 20_399) - number for number in numbers]
        assert age == sorted(age, reverse=True), "oldest first"
    newcomer = [10_999 - number for number in held[2] if number < 20_000]
    assert len([age for age in newcomer if age < 500]) == pytest.approx(len(newcomer) / 2, abs=2)
