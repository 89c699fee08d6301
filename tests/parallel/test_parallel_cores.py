"""Which cores real ranks bind themselves to, with each launcher and inside a set of cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import PROGRAMS, environment_of_ranks, timeless_metrics
from test_parallel_combinations import LEARNER_STEPS, SHORT

CORES = sorted(os.sched_getaffinity(0))[:2]

pytestmark = [pytest.mark.parallel, pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")]

WITHIN = ("taskset", "-c", ",".join(map(str, CORES)))
BIN = Path(sys.executable).parent
MPIRUN = (*WITHIN, str(BIN / "mpirun"), "--oversubscribe")
START = {
    "mpirun, bound": (*MPIRUN, "--bind-to", "core", "-np", "2"),
    "mpirun, unbound": (*MPIRUN, "--bind-to", "none", "-np", "2"),
    "horovodrun --gloo": (*WITHIN, str(BIN / "horovodrun"), "--gloo", "-np", "2"),
}


def placed(folder: Path, *command: str | Path) -> list[tuple[list[int], str]]:
    """Returns cores and threads of each rank that a command starts."""
    done = subprocess.run(
        list(map(str, command)), env=environment_of_ranks(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [json.loads(file.read_text()) for file in sorted(folder.glob("rank*.json"))]
    return [(rank["cores"], rank["threads"]) for rank in told]


def program(folder: Path) -> tuple[str | Path, ...]:
    return (sys.executable, PROGRAMS / "placement.py", folder)


@pytest.mark.parametrize("how", START)
def test_ranks_of_one_host_take_a_core_each(how: str, tmp_path: Path) -> None:
    first, second = CORES
    assert placed(tmp_path, *START[how], *program(tmp_path)) == [([first], "1"), ([second], "1")]


def test_more_ranks_than_cores_share_them(tmp_path: Path) -> None:
    command = (*MPIRUN, "--bind-to", "none", "-np", "4", *program(tmp_path))
    assert placed(tmp_path, *command) == [([CORES[rank // 2]], "1") for rank in range(4)]


def test_a_rank_keeps_cores_that_no_other_rank_was_given_alike(tmp_path: Path) -> None:
    """A launcher, or a wrapper around the rank, has bound each rank on purpose."""
    first, second = CORES
    one = ("-np", "1", "taskset", "-c", f"{first},{second}", *program(tmp_path))
    other = ("-np", "1", "taskset", "-c", str(second), *program(tmp_path))
    assert placed(tmp_path, *MPIRUN, "--bind-to", "none", *one, ":", *other) == [(CORES, "2"), ([second], "1")]


def test_ranks_with_unlike_numbers_of_threads_train_a_convolutional_network_together(tmp_path: Path) -> None:
    """Whatever follows from a rank's threads must not change which collectives it calls, with overlap or without."""
    first, second = CORES
    jobs, out = tmp_path / "jobs.json", tmp_path / "out.json"
    cells = [{"network": "cnn", "env": "image_envs:Dot-v0", "policy_lag": lag} for lag in (0, 1)]
    jobs.write_text(json.dumps([SHORT | cell for cell in cells]))
    run = (sys.executable, PROGRAMS / "combinations.py", out, jobs, tmp_path)
    one = ("-np", "1", "taskset", "-c", f"{first},{second}", *run)
    other = ("-np", "1", "taskset", "-c", str(second), *run)
    placed(tmp_path, *MPIRUN, "--bind-to", "none", *one, ":", *other)
    assert json.loads(out.read_text()) == [["tensorflow", LEARNER_STEPS - lag] for lag in (0, 1)]


def test_the_choices_of_a_run_do_not_depend_on_the_number_of_cores(tmp_path: Path) -> None:
    """The learner, the network and all other settings; the native learner's results are the same bits, too."""
    jobs = tmp_path / "jobs.json"
    cells = [{"network": "mlp", "learner": "auto"}, {"network": "cnn", "env": "image_envs:Dot-v0", "learner": "auto"}]
    jobs.write_text(json.dumps([SHORT | cell for cell in cells]))
    chosen, configurations, records = [], [], []
    for cores in (CORES[:1], CORES):
        folder = tmp_path / f"{len(cores)}"
        folder.mkdir()
        out = folder / "out.json"
        within = ("taskset", "-c", ",".join(map(str, cores)))
        placed(folder, *within, sys.executable, PROGRAMS / "combinations.py", out, jobs, folder)
        chosen.append(json.loads(out.read_text()))
        mlp, cnn = folder / "CartPole-v1" / "0", next(folder.glob("*Dot-v0")) / "1"
        configurations.append([_settings(directory) for directory in (mlp, cnn)])
        records.append(timeless_metrics(mlp))
    assert chosen == [[["native", LEARNER_STEPS], ["tensorflow", LEARNER_STEPS]]] * 2
    assert configurations[0] == configurations[1]
    assert records[0] == records[1]


def _settings(run_directory: Path) -> dict[str, Any]:
    """Returns what config.json records, but for the time and the place."""
    recorded = json.loads((run_directory / "config.json").read_text())
    del recorded["unix_time"], recorded["config"]["runs_dir"]
    return recorded
