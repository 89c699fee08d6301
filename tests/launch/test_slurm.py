"""The job under a real Slurm of two nodes: launch ways, time limits, preemption, cancelling, lost nodes and ranks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import wait_until
from launching import ROOT, read_metrics
from short_runs import SHORT_RUN, weights
from slurm_cluster import Job, Slurm, running_slurm
from slurm_runs import SUBMIT, TWO_NODES, submit

pytestmark = pytest.mark.launch

PACED_RUN = (
    *("--env", "paced_envs:PacedCartPole-v0", "--learning-starts", "200", "--train-period", "16", "--seed", "4"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "2", "--stall-timeout-seconds", "12"),
    *("--checkpoint-period", "1600", "--keep-checkpoints", "100", "--log-period", "800"),
)
"""Half a second or more for 800 env steps, a checkpoint every second or two."""
ENDLESS = (*PACED_RUN, "--total-env-steps", "100000000")
OF_THE_CLOCK = ("unix_time", "seconds", "resident_mebibytes")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        cluster.environ["PYTHONPATH"] = str(Path(__file__).parent)  # paced_envs.py
        yield cluster


@pytest.fixture(autouse=True)
def _nothing_is_left(slurm: Slurm) -> Iterator[None]:
    """Ends the test's jobs, and fails it if a rank outlives them."""
    yield
    slurm.run("scancel", "--full", "--user=root")
    wait_until(lambda: not slurm.run("squeue", "--noheader"), 60.0, "all jobs are over")
    wait_until(lambda: not slurm.hosts.ranks(), 10.0, "no rank is left behind on any host")


def timeless(run_directory: Path) -> list[dict[str, Any]]:
    """Returns the metrics without what tells of time."""
    return [
        {
            name: value
            for name, value in record.items()
            if name not in OF_THE_CLOCK and "_microseconds" not in name and "_per_second" not in name
        }
        for record in read_metrics(run_directory)
    ]


def saved_at(run_directory: Path) -> int:
    """Returns the env steps of the newest checkpoint, 0 if there is none."""
    return max((int(path.parent.name) for path in run_directory.glob("checkpoints/*/manifest.json")), default=0)


def wait_for_checkpoint(slurm: Slurm, job: Job, run_directory: Path) -> None:
    """Returns when a run has saved for the first time."""
    wait_until(lambda: saved_at(run_directory) > 0 or slurm.over(job), 120.0, "the first checkpoint")
    assert saved_at(run_directory) > 0, job.text()


def wait_for_reader(fifo: Path) -> int:
    """Returns a file descriptor that writes into a named pipe, as soon as someone reads from that."""
    found: list[int] = []

    def look() -> bool:
        with contextlib.suppress(OSError):
            found.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    wait_until(look, 60.0, f"{fifo} is read")
    return found[0]


def preempt(slurm: Slurm) -> None:
    """Returns when a job of a higher partition has had both nodes whole."""
    slurm.run("srun", "--partition=high", "--exclusive", "--nodes=2", "true", seconds=100.0)


def finish_after_a_restart(slurm: Slurm, job: Job) -> None:
    """Waits for a job that has to end well in a later allocation, from where it was."""
    assert slurm.wait_for(job, "COMPLETED", "FAILED", "NODE_FAIL") == "COMPLETED", job.text()
    assert int(slurm.shown(job.number)["Restarts"]) >= 1
    assert "resumed from the checkpoint at env step" in job.text()
    assert job.text().count("Greedy evaluation of the ") == 1, job.text()


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    """Returns what the launch ways have ended in so far."""
    return {}


@pytest.mark.parametrize(
    "way", ["auto", *(pytest.param(way, marks=pytest.mark.slow) for way in ("srun", "pmix", "mpirun", "horovodrun"))]
)
def test_every_launcher_runs_over_two_nodes(slurm: Slurm, way: str, digests: dict[str, str], tmp_path: Path) -> None:
    """Each output line names its rank, and two ranks end in the same bits with every launcher."""
    folder = tmp_path / "runs of mine"
    job = submit(slurm, *TWO_NODES, "--launcher", way, run=SHORT_RUN, folder=folder)
    slurm.wait_for(job, "COMPLETED", "FAILED")
    text, run_directory = job.text(), folder / "CartPole-v1" / "run"
    assert slurm.state(job) == "COMPLETED", text
    controller = "Gloo" if way in ("srun", "horovodrun") else "MPI"
    assert f"2, controller {controller}" in text
    assert ("--launcher auto chose pmix: srun --mpi=list names pmix" in text) == (way == "auto")
    spoken = [line for line in text.splitlines() if "Greedy evaluation of the best checkpoint" in line]
    assert len(spoken) == 1
    assert spoken[0].startswith({"mpirun": "[1,0]<stdout>:", "horovodrun": "[0]<stdout>:"}.get(way, "0: "))
    assert job.output.parent == run_directory / "slurm"
    assert (run_directory / "slurm" / "job.sbatch").exists()
    assert json.loads((run_directory / "config.json").read_text())["ranks"] == 2
    digests[way] = weights(run_directory)
    assert len(set(digests.values())) == 1, digests


@pytest.mark.slow
@pytest.mark.parametrize(("way", "controller"), [("auto", "MPI"), ("srun", "Gloo")])
def test_two_ranks_on_each_of_two_nodes(slurm: Slurm, way: str, controller: str, tmp_path: Path) -> None:
    options = ("--nodes", "2", "--ranks-per-node", "2", "--launcher", way)
    job = submit(slurm, *options, run=SHORT_RUN, folder=tmp_path)
    assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", job.text()
    assert f"4, controller {controller}" in job.text()


def chosen(slurm: Slurm, *options: str, folder: Path) -> tuple[str, str]:
    """Runs a job over two nodes with --launcher auto; returns the launcher that it chose, and why."""
    job = submit(slurm, *TWO_NODES, *options, run=SHORT_RUN, folder=folder)
    assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", job.text()
    choice = re.search(r"--launcher auto chose (\w+): (.*)", job.text())
    assert choice is not None, job.text()
    controller = "Gloo" if choice[1] == "srun" else "MPI"
    assert f"2, controller {controller}" in job.text()
    return choice[1], choice[2]


@pytest.mark.slow
def test_a_gpu_job_is_started_by_plain_srun(slurm: Slurm, tmp_path: Path) -> None:
    way, why = chosen(slurm, "--gpus", folder=tmp_path)
    assert (way, why) == ("srun", "the job has GPUs, whose gradients NCCL sums")


@pytest.fixture(scope="module")
def no_pmix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Returns a Slurm that was built without PMIx."""
    with running_slurm(tmp_path_factory.mktemp("slurm"), pmix=False) as cluster:
        yield cluster


@pytest.mark.slow
def test_without_pmix_cpu_ranks_are_started_by_mpirun(no_pmix: Slurm, tmp_path: Path) -> None:
    way, why = chosen(no_pmix, folder=tmp_path)
    assert (way, why) == ("mpirun", "srun --mpi=list does not name pmix; mpirun works in this allocation")


@pytest.mark.slow
def test_without_pmix_and_without_a_working_mpirun_ranks_are_started_by_plain_srun(
    no_pmix: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An mpirun that can start ranks on its own node only."""
    monkeypatch.setitem(no_pmix.environ, "OMPI_MCA_plm", "isolated")
    way, why = chosen(no_pmix, "--environment", "OMPI_MCA_plm", folder=tmp_path)
    assert way == "srun"
    assert why.startswith("srun --mpi=list does not name pmix, and mpirun does not work in this allocation (")
    assert why.endswith("Gloo is slower than MPI")


@pytest.mark.slow
def test_pmi2_without_an_mpi_that_knows_it_fails_with_the_reason(slurm: Slurm, tmp_path: Path) -> None:
    """The Open MPI of the environment was built without PMI2."""
    job = submit(slurm, *TWO_NODES, "--launcher", "pmi2", run=SHORT_RUN, folder=tmp_path)
    assert slurm.wait_for(job, "COMPLETED", "FAILED", seconds=90.0) == "FAILED"
    assert "OMPI was not built with SLURM's PMI support" in job.text().replace("\n", " ")


@pytest.mark.slow
def test_a_run_over_two_nodes_solves_cartpole(slurm: Slurm, tmp_path: Path) -> None:
    run = ("--preset", "cartpole", "--seed", "0")
    job = submit(slurm, *TWO_NODES, run=run, folder=tmp_path)
    assert slurm.wait_for(job, "COMPLETED", "FAILED", seconds=240.0) == "COMPLETED", job.text()
    (final,) = read_metrics(tmp_path / "CartPole-v1" / "run", "final_evaluation")
    assert final["mean_return"] >= 475.0


@pytest.mark.slow
def test_a_job_at_its_time_limit_goes_on_by_itself_and_ends_bit_for_bit_as_without_one(
    slurm: Slurm, tmp_path: Path
) -> None:
    """Allocations of a minute, of which the job keeps the second half for saving; beside it a run in one piece."""
    run = (*PACED_RUN, "--total-env-steps", "40000", "--time-reserve-seconds", "30")
    whole = submit(slurm, *TWO_NODES, "--time", "10", run=run, folder=tmp_path, name="whole")
    parts = submit(slurm, *TWO_NODES, "--time", "1", run=run, folder=tmp_path, name="parts")
    finish_after_a_restart(slurm, parts)
    assert slurm.wait_for(whole, "COMPLETED", "FAILED") == "COMPLETED", whole.text()
    assert slurm.shown(whole.number)["Restarts"] == "0"
    of_whole, of_parts = (next(tmp_path.glob(f"*/{name}")) for name in ("whole", "parts"))
    assert weights(of_parts) == weights(of_whole)
    assert timeless(of_parts) == timeless(of_whole)


@pytest.mark.slow
def test_scancel_saves_a_checkpoint_and_ends_the_job_for_good(slurm: Slurm, tmp_path: Path) -> None:
    job = submit(slurm, *TWO_NODES, run=ENDLESS, folder=tmp_path)
    run_directory = tmp_path / "paced_envs-PacedCartPole-v0" / "run"
    wait_for_checkpoint(slurm, job, run_directory)
    slurm.run("scancel", job.number)
    wait_until(lambda: not slurm.hosts.ranks(), 20.0, "all ranks have ended")
    slurm.wait_for_text(job, "not requeued")
    assert f"stopped and saved at env step {saved_at(run_directory):,}" in job.text()
    slurm.wait_for(job, "CANCELLED", seconds=20.0)


@pytest.mark.slow
def test_a_job_with_parameter_servers_is_stopped_and_resumed(slurm: Slurm, tmp_path: Path) -> None:
    """One worker and one server, on a node each; the same command continues the run."""
    served = ("--strategy", "ps-async", "--servers", "1")
    run_directory = tmp_path / "paced_envs-PacedCartPole-v0" / "run"
    job = submit(slurm, *TWO_NODES, run=(*ENDLESS, *served), folder=tmp_path)
    wait_for_checkpoint(slurm, job, run_directory)
    slurm.run("scancel", job.number)
    slurm.wait_for_text(job, "not requeued")
    assert f"stopped and saved at env step {saved_at(run_directory):,}" in job.text()
    end = str(saved_at(run_directory) + 1600)
    job = submit(slurm, *TWO_NODES, run=(*PACED_RUN, *served, "--total-env-steps", end), folder=tmp_path)
    assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", job.text()
    assert "parameter server, 1 rank(s) more that serve, asynchronous" in job.text()
    assert "resumed from the checkpoint at env step" in job.text()
    assert saved_at(run_directory) >= int(end)


@pytest.mark.slow
def test_a_preempted_job_saves_and_goes_on_when_it_may(slurm: Slurm, tmp_path: Path) -> None:
    run = (*PACED_RUN, "--total-env-steps", "20000")
    job = submit(slurm, *TWO_NODES, run=run, folder=tmp_path)
    wait_for_checkpoint(slurm, job, tmp_path / "paced_envs-PacedCartPole-v0" / "run")
    preempt(slurm)
    assert "stopped and saved at env step" in job.text()
    finish_after_a_restart(slurm, job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("minutes", "restarts"), [("10", "1"), ("2", "0")], ids=["long before the end", "at the warning of a near end"]
)
def test_a_signal_before_the_ranks_have_started_loses_no_job(
    slurm: Slurm, minutes: str, restarts: str, tmp_path: Path
) -> None:
    """The script is held where it looks for a checkpoint, by a configuration that does not end, and gets USR1 there."""
    config = tmp_path / "config.toml"
    config.write_text("seed = 4\n")
    options = ("--nodes", "1", "--time", minutes, "--slurm=--hold")
    job = submit(slurm, *options, run=(*SHORT_RUN, "--config", str(config)), folder=tmp_path)
    config.rename(tmp_path / "whole.toml")
    os.mkfifo(config)
    slurm.run("scontrol", "release", job.number)
    held = wait_for_reader(config)
    slurm.run("scancel", "--batch", "--signal=USR1", job.number)
    (tmp_path / "whole.toml").rename(config)
    os.close(held)
    assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", job.text()
    assert slurm.shown(job.number)["Restarts"] == restarts
    assert job.text().count("Greedy evaluation of the ") == 1


@pytest.mark.slow
def test_a_job_preempted_before_it_could_save_goes_back_to_the_queue(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rank looks for the other where that is not, so that neither comes to heed Slurm's TERM."""
    astray = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": slurm.hosts.head.address, "HOROVOD_GLOO_IFACE": "lo"}
    for name, value in astray.items():
        monkeypatch.setitem(slurm.environ, name, value)
    passed_on = [word for name in astray for word in ("--environment", name)]
    options = (*TWO_NODES, "--launcher", "srun", "--time", "10", *passed_on)
    job = submit(slurm, *options, run=ENDLESS, folder=tmp_path)
    node = slurm.hosts.nodes[1]
    wait_until(
        lambda: any("-m hvd_dqn.distributed.slurm" in line for line in node.processes().values()), 30.0, "it looks"
    )
    preempt(slurm)
    wait_until(lambda: slurm.shown(job.number)["Restarts"] == "1" or slurm.over(job), 30.0, "it is back in the queue")
    assert slurm.shown(job.number)["Restarts"] == "1", job.text()
    assert slurm.shown(job.number)["JobState"] in ("PENDING", "RUNNING"), job.text()


@pytest.mark.slow
@pytest.mark.parametrize(("way", "seconds"), [("srun", 15.0), ("pmix", 30.0)])
def test_a_job_that_loses_a_rank_ends_in_time_and_goes_on_from_its_checkpoint(
    slurm: Slurm, way: str, seconds: float, tmp_path: Path
) -> None:
    """Gloo notices at once; a sum under MPI waits for the dead rank until the watchdog or Slurm's KillWait ends it."""
    options = (*TWO_NODES, "--launcher", way)
    job = submit(slurm, *options, run=(*PACED_RUN, "--total-env-steps", "20000"), folder=tmp_path)
    wait_for_checkpoint(slurm, job, tmp_path / "paced_envs-PacedCartPole-v0" / "run")
    node = slurm.hosts.nodes[1]
    (victim,) = node.ranks()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "train.sbatch: saved at env step" in job.text(), seconds, "the first allocation is over")
    finish_after_a_restart(slurm, job)


@pytest.mark.slow
def test_a_job_whose_node_goes_down_is_requeued_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    job = submit(slurm, *TWO_NODES, run=(*PACED_RUN, "--total-env-steps", "20000"), folder=tmp_path)
    wait_for_checkpoint(slurm, job, tmp_path / "paced_envs-PacedCartPole-v0" / "run")
    node = slurm.hosts.nodes[1]
    node.kill()
    wait_until(lambda: not slurm.hosts.ranks(), 60.0, "the ranks on the other node have ended")
    wait_until(lambda: node.name in slurm.nodes_in("down"), 60.0, "Slurm knows")
    slurm.hosts.start_node(node)
    slurm.start_daemon(node)
    finish_after_a_restart(slurm, job)


@pytest.mark.slow
def test_an_elastic_job_goes_on_with_the_node_that_is_left_and_takes_the_other_back(
    slurm: Slurm, tmp_path: Path
) -> None:
    """In one and the same allocation; Horovod tries a host that lost its rank again after 20 to 30 s."""
    options = (*TWO_NODES, "--launcher", "elastic", "--min-ranks", "1")
    job = submit(slurm, *options, run=(*PACED_RUN, "--total-env-steps", "120000"), folder=tmp_path)
    run_directory = tmp_path / "paced_envs-PacedCartPole-v0" / "run"
    wait_for_checkpoint(slurm, job, run_directory)
    node = slurm.hosts.nodes[1]
    node.kill()
    slurm.wait_for_text(job, "the ranks have changed: 1 now, 2 before")
    slurm.hosts.start_node(node)
    slurm.start_daemon(node)
    slurm.wait_for_text(job, "the ranks have changed: 2 now, 1 before")
    assert slurm.wait_for(job, "COMPLETED", "FAILED", "NODE_FAIL") == "COMPLETED", job.text()
    assert slurm.shown(job.number)["Restarts"] == "0"
    changes = [(r["left"], r["came"]) for r in read_metrics(run_directory, "ranks")]
    assert (1, 0) in changes
    assert (0, 1) in changes


@pytest.mark.slow
def test_an_array_trains_one_run_per_seed_and_each_goes_on_by_itself(slurm: Slurm, tmp_path: Path) -> None:
    """One task loses its rank; the array's own number, which one of the tasks has, must not requeue both."""
    run = (*(word for word in PACED_RUN if word not in ("--seed", "4")), "--total-env-steps", "8000")
    job = submit(slurm, "--seeds", "3,5", run=run, folder=tmp_path)
    runs = {seed: tmp_path / "paced_envs-PacedCartPole-v0" / f"run-seed{seed}" for seed in (3, 5)}
    wait_until(lambda: saved_at(runs[5]) > 0, 60.0, "the first checkpoint")
    ranks = {pid: line for node in slurm.hosts.nodes for pid, line in node.processes().items() if pid in node.ranks()}
    (victim,) = [pid for pid, line in ranks.items() if "run-seed5" in line]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not slurm.run("squeue", "--noheader"), 120.0, "both are over")
    restarts = {seed: slurm.shown(f"{job.number}_{seed}")["Restarts"] for seed in runs}
    assert restarts == {3: "0", 5: "1"}
    outputs = sorted(job.output.parent.glob("*.out"))
    assert [path.name for path in outputs] == [f"{job.number}-seed{seed}.out" for seed in runs]
    for seed, run_directory in runs.items():
        assert json.loads((run_directory / "config.json").read_text())["config"]["seed"] == seed
        assert len(read_metrics(run_directory, "final_evaluation")) == 1
    assert weights(runs[3]) != weights(runs[5])


@pytest.mark.slow
def test_the_batch_script_can_be_submitted_by_hand(slurm: Slurm, tmp_path: Path) -> None:
    """Slurm runs a copy of it, far from the project; the run is named after the job."""
    script = ROOT / "launch" / "slurm" / "train.sbatch"
    own = ("--parsable", f"--output={tmp_path}/%j.out", "--nodes=1")
    number = slurm.run("sbatch", *own, script, "--", *SHORT_RUN, "--runs-dir", tmp_path).strip()
    job = Job(number, tmp_path / f"{number}.out")
    assert slurm.wait_for(job, "COMPLETED", "FAILED") == "COMPLETED", job.text()
    assert len(read_metrics(tmp_path / "CartPole-v1" / f"job-{number}", "final_evaluation")) == 1


@pytest.mark.slow
def test_a_mistake_in_a_script_submitted_by_hand_ends_the_job_before_any_rank_starts(
    slurm: Slurm, tmp_path: Path
) -> None:
    script = ROOT / "launch" / "slurm" / "train.sbatch"
    own = ("--parsable", f"--output={tmp_path}/%j.out")
    number = slurm.run("sbatch", *own, script, "--", "--presett", "maze").strip()
    job = Job(number, tmp_path / f"{number}.out")
    assert slurm.wait_for(job, "COMPLETED", "FAILED", seconds=30.0) == "FAILED"
    assert "--preset" in job.text()
    assert "ranks on" not in job.text()


@pytest.mark.slow
def test_ranks_get_the_named_variables_and_no_others(slurm: Slurm, tmp_path: Path) -> None:
    slurm.environ |= {"HUSH": "a-secret-in-the-environment", "WANTED": "yes"}
    job = submit(slurm, *TWO_NODES, "--environment", "WANTED", run=ENDLESS, folder=tmp_path)
    wait_for_checkpoint(slurm, job, tmp_path / "paced_envs-PacedCartPole-v0" / "run")
    for node in slurm.hosts.nodes:
        (rank,) = node.ranks()
        environ = Path(f"/proc/{rank}/environ").read_bytes().split(b"\0")
        assert b"WANTED=yes" in environ
        assert not any(b"a-secret-in-the-environment" in word for word in environ)


@pytest.mark.slow
def test_what_slurm_itself_refuses_is_told_and_nothing_is_in_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    before = slurm.run("squeue", "--noheader", "--states=all", "--format=%i")
    own = ("--partition", "nowhere", "--", "--runs-dir", tmp_path / "runs", "--name", "x")
    done = slurm.attempt(SUBMIT, *own)
    assert done.returncode == 2, done.stdout
    assert "invalid partition specified: nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert slurm.run("squeue", "--noheader", "--states=all", "--format=%i") == before
