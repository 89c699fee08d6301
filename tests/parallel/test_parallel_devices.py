"""Ranks and their GPUs: what cannot go well is refused on all, with GPUs that TensorFlow is made to believe in."""

from __future__ import annotations

from pathlib import Path

import pytest
from launching import PROGRAMS, read_metrics, run, run_well
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

SHORT = ("--total-env-steps", "512", "--learning-starts", "128", "--evaluation-period", "0", "--log-period", "128")
SHOWN = PROGRAMS / "gpus_train.py"


@pytest.mark.parametrize(
    ("how", "counts", "says"),
    [
        pytest.param(
            "mpirun",
            "1,1",
            "2 ranks on this host and 1 GPU(s) that they see: start at most 1 here",
            marks=pytest.mark.slow,
        ),
        ("horovodrun --gloo", "1,1", "2 ranks on this host and 1 GPU(s) that they see: start at most 1 here"),
        ("mpirun", "2,0", "computes on: 'a GPU' on rank 0, 'the CPU' on rank 1"),
        pytest.param(
            "horovodrun --gloo", "0,2", "computes on: 'the CPU' on rank 0, 'a GPU' on rank 1", marks=pytest.mark.slow
        ),
    ],
)
def test_ranks_without_a_gpu_for_each_are_refused_together(how: str, counts: str, says: str, tmp_path: Path) -> None:
    outcome = run(how, 2, counts, *SHORT, "--runs-dir", tmp_path, program=SHOWN)
    assert outcome.code == (1 if "gloo" in how else 2), outcome.output  # Gloo's launcher makes a 1 of every code
    assert outcome.output.count(says) == 1, outcome.output
    assert "train.py: rank" not in outcome.output, outcome.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["mpirun", "horovodrun --gloo"])
def test_each_rank_pins_its_own_gpu_before_anything_is_computed(how: str, tmp_path: Path) -> None:
    """TensorFlow refuses to hide devices that it has begun to use; nothing can be computed on these ones."""
    outcome = run(how, 2, "2,2", *SHORT, "--runs-dir", tmp_path, program=SHOWN)
    for number in range(2):
        assert outcome.output.count(f"uses /physical_device:GPU:{number}") == 1, outcome.output
    assert "cannot be modified" not in outcome.output


def test_gpus_are_left_alone_where_the_cpu_is_asked_for(tmp_path: Path) -> None:
    outcome = run_well("mpirun", 2, "1,1", *SHORT, "--device", "cpu", "--runs-dir", tmp_path, program=SHOWN)
    assert outcome.output.count("uses no GPU") == 2
    assert "device per rank              CPU" in outcome.output


def test_a_job_learns_in_half_precision(persistent_ranks: PersistentRanks, tmp_path: Path) -> None:
    """That all ranks hold the same weights is checked at each line of metrics."""
    options = ("--precision", "bfloat16", "--name", "run", "--runs-dir", tmp_path)
    persistent_ranks.run_well(2, *SHORT, *options)
    (run_directory,) = tmp_path.glob("*/run")
    losses = [line["loss"] for line in read_metrics(run_directory, "training") if line["loss"] is not None]
    assert losses
    assert all(loss > 0 for loss in losses)
