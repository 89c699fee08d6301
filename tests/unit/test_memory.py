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
