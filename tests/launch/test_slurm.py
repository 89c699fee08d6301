"""The job under a real Slurm of two nodes: launch ways, time limits, preemption, cancelling, lost nodes and ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import wait_until
from launching import ROOT, newest_checkpoint
from slurm_cluster import Job, Slurm, running_slurm

pytestmark = pytest.mark.launch

SUBMIT = ROOT / "launch" / "slurm" / "submit"
TWO_NODES = ("--nodes", "2", "--ranks-per-node", "1")
SHORT_RUN = (
    *("--total-env-steps", "1000", "--learning-starts", "200", "--log-period", "200", "--seed", "4"),
    *("--evaluation-period", "500", "--evaluation-episodes", "5", "--final-evaluation-episodes", "6"),
)
LONG_RUN = (
    *("--total-env-steps", "100000000", "--learning-starts", "200", "--evaluation-period", "0", "--train-period", "16"),
    *("--checkpoint-period", "2000", "--log-period", "1000"),
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _nothing_is_left(slurm: Slurm) -> Iterator[None]:
    """Ends the test's jobs, and fails it if a rank outlives them."""
    yield
    slurm.run("scancel", "--full", "--user=root")
    wait_until(lambda: not slurm.run("squeue", "--noheader"), 60.0, "all jobs are over")
    wait_until(lambda: not slurm.hosts.ranks(), 10.0, "no rank is left behind on any host")


def submit(slurm: Slurm, *options: str, run: tuple[str, ...], folder: Path, name: str = "run") -> Job:
    """Submits a run that has to be accepted."""
    answer = slurm.run(SUBMIT, *options, "--", *run, "--runs-dir", str(folder), "--name", name)
    return slurm.submitted(answer)


def weights(run_directory: Path) -> str:
    """Returns the checksum of the newest checkpoint's online and target network and optimizer state."""
    return hashlib.sha256((newest_checkpoint(run_directory) / "learner.safetensors").read_bytes()).hexdigest()


def resumptions(job: Job) -> int:
    """Returns how often the job has gone on from a checkpoint."""
    return job.text().count("resumed from the checkpoint at env step")


@pytest.fixture(scope="module")
def short_runs(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Gathers what the launch ways leave, to be compared."""
    return {}


@pytest.mark.parametrize("way", ["srun", "pmix", "mpirun"])
def test_every_launch_way_runs_over_two_nodes(
    slurm: Slurm, way: str, short_runs: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    """Rank 0 tells all, each line says which rank speaks, and two ranks end in the same bits whatever carries them."""
    folder = tmp_path / "runs of mine"
    job = submit(slurm, *TWO_NODES, "--launcher", way, run=SHORT_RUN, folder=folder)
    slurm.wait_for(job, "COMPLETED", "FAILED")
    text, run_directory = job.text(), folder / "CartPole-v1" / "run"
    assert slurm.state(job) == "COMPLETED", text
    controller = "Gloo" if way == "srun" else "MPI"
    prefix = "[1,0]<stdout>:" if way == "mpirun" else "0: "
    assert f"2, controller {controller}" in text
    spoken = [line for line in text.splitlines() if "Greedy evaluation of the best checkpoint" in line]
    assert len(spoken) == 1
    assert spoken[0].startswith(prefix)
    assert job.output.parent == run_directory / "slurm"
    assert (run_directory / "slurm" / "job.sbatch").exists()
    assert json.loads((run_directory / "config.json").read_text())["ranks"] == 2
    short_runs[way] = (run_directory, weights(run_directory))
    assert len({digest for _, digest in short_runs.values()}) == 1
