"""Local SGD on real ranks: what an average is, when it is due, and that all that ends or continues a run still does."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from launching import GENERAL, LEARNERS, PROGRAMS, launched, newest_checkpoint, read_metrics, run_well
from persistent_ranks import PersistentRanks
from test_parallel_elastic import HOSTS, elastic, trained_to, write_hosts
from test_parallel_signals import check_that_it_continues, state_of

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

LOCAL = ("--strategy", "local")
RUN = (
    *("--total-env-steps", "200", "--learning-starts", "100", "--num-envs", "8", "--hidden-sizes", "16"),
    *("--epsilon-start", "1", "--epsilon-end", "1", "--target-update-period", "40", "--max-grad-norm", "0"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "2", "--name", "run"),
)
"""Random actions: what is stored does not depend on the weights. Eight updates per iteration, 100 in all."""
ALGORITHMS: dict[str, tuple[str, ...]] = {
    **{f"dqn, {name}": options for name, options in LEARNERS.items()},
    "qr": ("--algorithm", "qr", "--quantiles", "7"),
}
SGD = ("--optimizer", "sgd", "--learning-rate", "0.05")


def _vectors(run_directory: Path) -> dict[str, np.ndarray]:
    """Returns weights, targets and optimizer state of the newest checkpoint by name."""
    folder = newest_checkpoint(run_directory)
    files = [safetensors.numpy.load_file(folder / f"{name}.safetensors") for name in ("model", "learner")]
    return files[0] | files[1]


def _run(ranks: PersistentRanks, count: int, folder: Path, *options: str) -> Path:
    ranks.run_well(count, *RUN, *options, "--runs-dir", folder)
    (run_directory,) = folder.glob("*/run")
    return run_directory


@pytest.mark.parametrize(
    ("algorithm", "ranks", "batch"),
    [*((name, 2, 3) for name in ALGORITHMS), ("dqn, native", 4, 6), ("qr", 4, 6)],
)
def test_with_a_period_of_one_and_plain_gradient_descent_it_is_allreduce(
    algorithm: str, ranks: int, batch: int, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Within 1e-5 after 100 updates, with uneven shares: 2 and 1 of 3 rows; 2, 2, 1 and 1 of 6."""
    options = (*SGD, *ALGORITHMS[algorithm], "--global-batch-size", str(batch))
    plain = _vectors(_run(persistent_ranks, ranks, tmp_path / "a", *options))
    local = _vectors(_run(persistent_ranks, ranks, tmp_path / "b", *options, *LOCAL, "--sync-period", "1"))
    assert plain.keys() == local.keys()
    for name, vector in plain.items():
        np.testing.assert_allclose(local[name], vector, rtol=0, atol=1e-5, err_msg=name)


def test_with_a_longer_period_it_is_not_allreduce(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    plain = _vectors(_run(persistent_ranks, 2, tmp_path / "a", *SGD))
    local = _vectors(_run(persistent_ranks, 2, tmp_path / "b", *SGD, *LOCAL, "--sync-period", "50"))
    assert max(np.abs(local[name] - vector).max() for name, vector in plain.items()) > 1e-3


def test_optimizer_state_is_averaged_by_rows_too(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """After one update Adam's momentum is that of allreduce; a mean of squares is at least the square of the mean."""
    once = ("--train-period", "100", "--total-env-steps", "200", "--global-batch-size", "3", *GENERAL)
    plain = _vectors(_run(persistent_ranks, 2, tmp_path / "a", *once))
    local = _vectors(_run(persistent_ranks, 2, tmp_path / "b", *once, *LOCAL))
    momentum, velocity = (
        [np.concatenate([v.ravel() for n, v in sorted(of.items()) if kind in n]) for of in (plain, local)]
        for kind in ("momentum", "velocity")
    )
    assert np.abs(momentum[0]).max() > 1e-4
    np.testing.assert_allclose(momentum[1], momentum[0], rtol=1e-4, atol=1e-8)
    assert (velocity[1] >= velocity[0] * (1 - 1e-4) - 1e-12).all()
    assert velocity[1].sum() > 1.1 * velocity[0].sum()


@pytest.mark.parametrize(("period", "averages"), [(1, 300), (8, 37), (20, 13), (1000, 1)])
def test_between_two_averages_there_is_no_collective(
    period: int, averages: int, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Updates come in iterations of 4 and 8: one sum for each period, rounded up to iterations, and the last."""
    quiet = ("--target-update-period", "100000", "--log-period", "100000", "--checkpoint-period", "100000")
    options = (*RUN, "--total-env-steps", "400", *quiet, *LOCAL, "--sync-period", str(period), "--runs-dir", tmp_path)
    persistent_ranks.run_well(2, tmp_path, *options, program=PROGRAMS / "counted_train.py")
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert [call[:2] for call in first] == [call[:2] for call in second], "both call the same after the same updates"
    sums = [(updates, length) for name, updates, length in first if name == "sum" and length > 1]
    smallest = min(length for updates, length in sums if updates > 0)
    before = [length for updates, length in sums if updates == 0]
    assert len(before) == 12, "one for each iteration before learning begins, at 100 of 8 each"
    assert smallest > 20 * max(before)
    assert len(sums) - len(before) == averages
    others = [call for call in first if call[0] != "sum" and 0 < call[1] < 300]
    assert others == []


def test_an_average_is_the_same_under_gloo_where_the_native_learner_runs_too(
    persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """With two ranks a sum has one order only."""
    options = (*LOCAL, *LEARNERS["native"])
    mpi = _vectors(_run(persistent_ranks, 2, tmp_path / "a", *options))
    run_well("horovodrun --gloo", 2, *RUN, *options, "--runs-dir", tmp_path / "b")
    gloo = _vectors(next((tmp_path / "b").glob("*/run")))
    for name, vector in mpi.items():
        np.testing.assert_array_equal(gloo[name], vector, err_msg=name)


def test_the_start_report_and_config_json_name_the_strategy(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    options = (*RUN, *LOCAL, "--sync-period", "20", "--runs-dir", tmp_path)
    output = persistent_ranks.run_well(2, *options).output
    assert "local, averaged every 20 updates of each rank" in output
    config = json.loads(next(tmp_path.glob("*/run/config.json")).read_text())["config"]
    assert (config["strategy"], config["sync_period"]) == ("local", 20)


def test_a_signal_to_one_rank_waits_for_the_average_and_saves_the_job(
    persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """SIGTERM to rank 1: exit code 75 after a whole number of rounds, and a resume continues, also as allreduce."""
    run_directory = tmp_path / "CartPole-v1" / "stopped"
    long = (
        *("--total-env-steps", "100000000", "--learning-starts", "192", "--log-period", "200", "--train-period", "4"),
        *("--evaluation-period", "1000", "--evaluation-episodes", "4", "--final-evaluation-episodes", "4"),
    )
    options = (*long, "--name", "stopped", *LOCAL, "--sync-period", "64", *GENERAL, "--runs-dir", tmp_path)
    with launched("mpirun", 2, *options) as job:
        job.wait_for("evaluation at env step 1,2")
        injected("request to stop (to a rank)")
        os.kill(job.rank_pid(1), signal.SIGTERM)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert outcome.output.count("stopped and saved at env step") == 1
    saved = state_of(run_directory)
    assert saved["counters"]["learner_steps"] % 64 == 0
    check_that_it_continues(run_directory, 2, saved, persistent_ranks)
    again = state_of(run_directory)
    more = ("--strategy", "allreduce", "--sync-period", "16")
    end = str(again["counters"]["env_steps"] + 400)
    persistent_ranks.run_well(2, "--resume", run_directory, "--total-env-steps", end, *more)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_fault_between_two_averages_ends_all_ranks_with_its_message(
    learner: str, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """An environment of rank 1 raises in its fortieth step; the others learn of it when 64 updates are complete."""
    options = (
        *("--env", "hostile_envs:Raises-v0", "--num-envs", "4", "--learning-starts", "40", "--train-period", "4"),
        *("--total-env-steps", "4000", "--log-period", "4", "--checkpoint-period", "40", "--sync-period", "64"),
    )
    injected("environment that raises")
    outcome = persistent_ranks.run(2, *options, *LOCAL, *LEARNERS[learner], "--runs-dir", tmp_path)
    assert outcome.code == 2, outcome.output
    assert outcome.output.count("rank 1: environment 2 raised RuntimeError: the floor gave way") == 1
    assert "Traceback" not in outcome.output.split("hostile_envs.py")[0]
    (run_directory,) = tmp_path.glob("*/*")
    assert int(newest_checkpoint(run_directory).name) == 40, "nothing is saved after the fault"


@pytest.mark.parametrize("learner", LEARNERS)
def test_gradients_that_are_not_finite_are_left_out_counted_and_end_the_job_at_an_average(
    learner: str, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """Three on rank 1, of which two are tolerated: the third ends the job when the ranks synchronise."""
    options = (
        *("--total-env-steps", "1600", "--learning-starts", "160", "--evaluation-period", "0", "--log-period", "160"),
        *("--checkpoint-period", "160", "--final-evaluation-episodes", "2", "--skip-nonfinite", "2"),
        *(*LOCAL, "--sync-period", "32", *LEARNERS[learner], "--runs-dir", tmp_path),
    )
    injected("gradient that is not finite", 3)
    outcome = persistent_ranks.run(2, "1", "7,40,1000", *map(str, options), program=PROGRAMS / "poisoned_train.py")
    assert outcome.code == 2, outcome.output
    for number, step in enumerate((7, 40), start=1):
        line = f"the gradient of learner step {step} is not finite on rank(s) 1: skipped there ({number} of 2"
        assert outcome.output.count(line) == 1, outcome.output
    ending = "the gradient of learner step 1000 is not finite on rank(s) 1, after 2 that"
    assert outcome.output.count(ending) == 1, outcome.output
    (run_directory,) = tmp_path.glob("*/*")
    lines = read_metrics(run_directory, "training")
    assert [line["skipped_updates"] for line in lines][-1] == 2
    assert all(line["learner_steps"] + line["skipped_updates"] == line["env_steps"] - 160 for line in lines[1:])
    assert int(newest_checkpoint(run_directory).name) < 160 + 1000
    assert all(np.isfinite(vector).all() for vector in _vectors(run_directory).values())


def test_a_rank_waits_for_one_that_is_several_times_slower(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """Rounds of sixteen updates take 2.4 and 8 s, under a limit of two seconds; an iteration's eight take 4 s."""
    options = (
        *("--total-env-steps", "208", "--learning-starts", "176", "--num-envs", "8", "--evaluation-period", "0"),
        *("--final-evaluation-episodes", "1", "--stall-timeout-seconds", "2", *GENERAL, *LOCAL),
    )
    program = PROGRAMS / "slow_learner.py"
    outcome = persistent_ranks.run_well(2, "0.15,0.5", *options, "--runs-dir", tmp_path, program=program)
    assert "got no further" not in outcome.output


@pytest.mark.slow
def test_an_elastic_job_survives_a_rank_that_is_lost_between_two_averages(tmp_path: Path, injected: Any) -> None:
    """The other rank continues from the last snapshot, which was taken at an average, and a new rank joins it."""
    write_hosts(tmp_path, *HOSTS[:2])
    options = (*LOCAL, "--sync-period", "8", "--snapshot-period", "100", "--total-env-steps", "8000")
    with elastic(tmp_path, *options) as job:
        job.wait_until(lambda: trained_to(tmp_path) >= 1500, 120.0)
        injected("rank killed by SIGKILL")
        os.kill(job.rank_pid(1), signal.SIGKILL)
        job.wait_for("the ranks have changed: 1 now, 2 before", 60.0)
        job.wait_for("the ranks have changed: 2 now, 1 before", 120.0)
        outcome = job.finish()
    assert outcome.code == 0, outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.slow
def test_cartpole_is_learned_with_an_average_every_sixteen_updates(
    persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    options = ("--preset", "cartpole", *LOCAL, "--sync-period", "16", "--name", "run", "--runs-dir", tmp_path)
    persistent_ranks.run_well(2, *options)
    (run_directory,) = tmp_path.glob("*/run")
    (final,) = read_metrics(run_directory, "final_evaluation")
    assert final["mean_return"] > 400.0
