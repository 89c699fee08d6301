"""Laws of what a task of a job step tells Horovod about itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvd_dqn.distributed.launcher import Launch, read_launch, tasks_per_node
from hvd_dqn.distributed.slurm import find, first_and_last, horovod_variables, read_task
from hvd_dqn.errors import UserError

ROOT = Path(__file__).parents[2]
TASK = {
    **{"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"},
    **{"SLURM_STEP_NODELIST": "node[1-3]", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURMD_NODENAME": "node2"},
}


@pytest.mark.parametrize(
    ("text", "counts"), [("1", [1]), ("2(x3)", [2, 2, 2]), ("4,3", [4, 3]), ("2(x2),1,8(x2)", [2, 2, 1, 8, 8])]
)
def test_slurms_short_form_of_tasks_is_read(text: str, counts: list[int]) -> None:
    assert tasks_per_node(text) == counts


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("n1", "n1", "n1"),
        ("n[1-2]", "n1", "n2"),
        ("gpu[001-004,017]", "gpu001", "gpu017"),
        ("gpu[007],big2", "gpu007", "big2"),
        ("a,b[3,5-6],c-[09-10]-x", "a", "c-10-x"),
        ("rack[1-2]n[03-04]", "rack1n03", "rack2n04"),
    ],
)
def test_first_and_last_host_of_slurms_short_form(text: str, first: str, last: str) -> None:
    """As `scontrol show hostnames` lists them."""
    assert first_and_last(text) == (first, last)


def test_a_task_becomes_a_rank() -> None:
    task = read_task(TASK)
    assert (task.rank, task.size, task.local_rank, task.local_size) == (3, 5, 1, 2)
    assert task.hosts == ("node1", "node3")
    variables = horovod_variables(task, "10.0.0.1", 20_001, "ib0")
    assert read_launch(variables) == Launch(3, 5, 1, 2, under_launcher=True)


def test_ranks_of_one_local_number_meet_across_the_hosts_that_have_it() -> None:
    """The third host has one task only: local rank 1 exists on two hosts, local rank 0 on three."""
    second, first = read_task(TASK), read_task(TASK | {"SLURM_LOCALID": "0", "SLURM_PROCID": "2"})
    assert (second.cross_rank, second.cross_size) == (1, 2)
    assert (first.cross_rank, first.cross_size) == (1, 3)


def test_all_tasks_of_a_step_try_the_same_ports_and_another_steps_others() -> None:
    other_rank = read_task(TASK | {"SLURM_PROCID": "0", "SLURM_NODEID": "0"})
    assert read_task(TASK).ports == other_rank.ports
    assert len(set(other_rank.ports)) == len(other_rank.ports)
    assert read_task(TASK | {"SLURM_STEP_ID": "1"}).ports[0] != other_rank.ports[0]


def test_outside_srun_it_says_what_to_type() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = [sys.executable, "-m", "hvd_dqn.distributed.slurm", "train.py"]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "use srun --mpi=none --kill-on-bad-exit=1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_rank_0_that_never_answers_is_named() -> None:
    with pytest.raises(UserError, match=r"rank 0 on node1 \(127\.0\.0\.1\) did not answer"):
        find(read_task(TASK), "127.0.0.1", [1], seconds=0.2)


def test_a_stranger_on_the_port_is_not_taken_for_rank_0() -> None:
    """Another job's rendezvous may listen on a port of ours: ranks go on to the next one."""
    program = """
import os, sys
from hvd_dqn.distributed.slurm import find, read_task, serve
ours, theirs = (read_task(os.environ | {"SLURM_JOB_ID": job}) for job in ("17", "18"))
first = serve(theirs, ours.ports)
second = serve(ours, ours.ports)
assert (first, second) == tuple(ours.ports[:2]), (first, second)
print(find(ours, "127.0.0.1", ours.ports, 5.0) == second, find(theirs, "127.0.0.1", ours.ports, 5.0) == first)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | TASK, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
