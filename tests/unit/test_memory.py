"""Laws of the memory that a job may take: counted before it is taken, per host, within the limits of containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvd_dqn.distributed.memory import usable_memory

from .whole_runs import QUICK, run


@pytest.mark.parametrize(
    ("flags", "lowers"),
    [
        (("--num-envs", "1000000000"), "--num-envs"),
        (("--replay-capacity", "1000000000000", "--total-env-steps", "1000000000000"), "--replay-capacity"),
        (("--replay-capacity", "1000000000000"), "--replay-capacity"),
        (("--hidden-sizes", "1000000000"), "--hidden-sizes"),
        (("--hidden-sizes", "1000000", "1000000"), "--hidden-sizes"),
        (("--hidden-sizes", *["1"] * 101), "--hidden-sizes"),
        (("--num-envs", "1000000", "--global-batch-size", "50000"), "--global-batch-size"),
        (("--total-env-steps", str(10**30)), "--total-env-steps"),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_taken(flags: tuple[str, ...], lowers: str, tmp_path: Path) -> None:
    ended = run(*QUICK, "--runs-dir", tmp_path, *flags)
    assert (ended.code, lowers in ended.printed, "GiB" in ended.printed or "at most" in ended.printed) == (
        2,
        True,
        True,
    )
    assert not list(tmp_path.iterdir())


WIDE = """
import gymnasium as gym
import numpy as np


class Wide(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (1_000_000,), np.float32)
    action_space = gym.spaces.Discrete(20_000)


gym.register("Wide-v0", entry_point=Wide)
"""


@pytest.mark.parametrize(
    ("flags", "lowers"),
    [
        (("--replay-capacity", "1000000", "--total-env-steps", "1000000"), "--replay-capacity"),
        (("--replay-capacity", "100", "--hidden-sizes", "100000"), "--hidden-sizes"),
        (("--replay-capacity", "1000", "--global-batch-size", "1000", "--num-envs", "64"), "--global-batch-size"),
        (
            ("--replay-capacity", "100", "--algorithm", "qr", "--quantiles", "1000000", "--global-batch-size", "16"),
            "--quantiles",
        ),
    ],
)
def test_observations_of_a_million_floats_and_many_actions_are_counted(
    flags: tuple[str, ...], lowers: str, tmp_path: Path
) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    runs = ("--runs-dir", tmp_path / "runs", "--env", f"{tmp_path / 'wide.py'}:Wide-v0")
    ended = run(*QUICK, *runs, *flags)
    assert (ended.code, "this job takes at least" in ended.printed) == (2, True), ended.printed
    assert lowers in ended.printed
    assert not (tmp_path / "runs").exists()


def test_the_outputs_of_a_batch_are_counted(tmp_path: Path) -> None:
    """Not in the replay, the observations or the parameters: 40,000 x 2 actions x 100,000 quantiles."""
    flags = ("--algorithm", "qr", "--quantiles", "100000", "--global-batch-size", "40000", "--train-period", "2")
    ended = run(*QUICK, "--runs-dir", tmp_path, *flags)
    assert (ended.code, "lower --global-batch-size, --atoms" in ended.printed) == (2, True), ended.printed


def test_a_replay_that_a_longer_run_could_not_fill_is_warned_about(tmp_path: Path) -> None:
    ended = run(*QUICK, "--runs-dir", tmp_path, "--total-env-steps", "50", "--replay-capacity", "1000000000")
    assert "GiB when full, of" in ended.printed
    gibibytes = 40 * 10**9 / 2**30
    assert (ended.code, "a full replay takes" in ended.printed) == (0, usable_memory() < gibibytes * 2**30)


def test_the_smallest_limit_of_host_and_control_groups_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable: 70 kB\nSwapFree: 5 kB\n")
    groups = [tmp_path / name for name in ("inner", "outer", "absent")]
    assert usable_memory(meminfo, groups) == 75 * 1024
    for group, name, limit in ((groups[0], "memory.max", "max"), (groups[1], "memory.limit_in_bytes", "5000")):
        group.mkdir()
        (group / name).write_text(limit + "\n")
    assert usable_memory(meminfo, groups[:1]) == 75 * 1024
    assert usable_memory(meminfo, groups) == 5000
