"""Laws of the profile: where an iteration's time went, as means and as a trace."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from hvd_dqn.run.profile import PHASES, IterationProfile, over_ranks, resident_bytes

UPDATE = ("gradient", "allreduce", "apply")
TWO_UPDATES = [10.0, 11.0, 13.0, 16.0, 16.5, 18.5, 21.0]
"""1, 2 and 3 seconds, then 0.5, 2 and 2.5."""


def test_phases_in_turn_are_summed_each_over_all_turns() -> None:
    profile = IterationProfile()
    with profile.iteration():
        profile.add_in_turn(UPDATE, TWO_UPDATES)
        profile.add("collect", 5.0, 5.25)
    means = profile.take()
    assert [means[name] for name in (*UPDATE, "collect")] == pytest.approx([1.5e6, 4e6, 5.5e6, 0.25e6])
    assert set(profile.take().values()) == {0.0}


def test_a_trace_has_every_single_phase_where_it_lies_in_time(tmp_path: Path) -> None:
    profile = IterationProfile(traced=True)
    profile.add("sample", 9.0, 10.0)
    profile.add_in_turn(UPDATE, TWO_UPDATES)
    profile.write_trace(tmp_path / "rank.trace.json", rank=3)
    events = json.loads((tmp_path / "rank.trace.json").read_text())["traceEvents"]
    seen = [(event["name"], event["ts"] / 1e6, event["dur"] / 1e6) for event in events if event["ph"] == "X"]
    assert [name for name, _, _ in seen] == ["sample", *UPDATE, *UPDATE]
    assert [start for _, start, _ in seen] == pytest.approx([9.0, *TWO_UPDATES[:-1]])
    assert [length for _, _, length in seen] == pytest.approx([1.0, 1.0, 2.0, 3.0, 0.5, 2.0, 2.5])
    assert {event["pid"] for event in events} == {3}


def test_the_ranks_extremes_and_their_middle_are_told() -> None:
    profiles = []
    for microseconds in (30.0, 10.0, 20.0):
        profile = IterationProfile()
        with profile.iteration():
            profile.add("apply", 1.0, 1.0 + microseconds / 1e6)
        profiles.append(profile.take())
    summary = over_ranks(profiles)
    found = [summary[f"apply_microseconds_{statistic}"] for statistic in ("min", "median", "max")]
    assert found == pytest.approx([10.0, 20.0, 30.0], rel=1e-6)


def test_a_rank_is_busy_in_all_phases_but_the_allreduce() -> None:
    """The first one waits; no phase alone shows that the second one takes four times as long."""
    waiting = dict.fromkeys(PHASES, 1.0) | {"allreduce": 100.0}
    slow = dict.fromkeys(PHASES, 4.0) | {"allreduce": 5.0}
    summary = over_ranks([waiting, slow])
    assert [summary[f"busy_microseconds_{statistic}"] for statistic in ("min", "median", "max")] == [6.0, 15.0, 24.0]


def test_memory_that_cannot_be_read_ends_no_run() -> None:
    """An environment may have opened all files that the process may open."""
    assert resident_bytes() > 0
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
    try:
        assert resident_bytes() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
