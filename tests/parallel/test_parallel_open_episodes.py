"""Open episodes live through checkpoints: their period changes nothing, and kills and other ranks cost no episode."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import safetensors.numpy
import zstandard
from forms import FULL
from launching import Launch, checkpoints, launched, newest_checkpoint, run_well
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel

KINDS = {
    "one loop": ("--env", "CartPole-v1", "--vectorization", "sync"),
    "processes": ("--env", "CartPole-v1", "--vectorization", "async"),
    "native": ("--env", "CartPole-v1", "--vectorization", "native"),
    "states": ("--env", "saved_envs:WithState-v0"),
}
RUN = (
    *("--num-envs", "6", "--learning-starts", "300", "--train-period", "4", "--global-batch-size", "16"),
    *("--hidden-sizes", "16", "--replay-capacity", "900", "--target-update-period", "50", "--log-period", "250"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "3", "--keep-checkpoints", "100", "--name", "run"),
)
SHORT = ("--total-env-steps", "1500")
LONG = ("--total-env-steps", "30000")
OFTEN = ("--checkpoint-period", "500")
NEVER = ("--checkpoint-period", "1000000")


def _run_directory(folder: Path) -> Path:
    (found,) = folder.glob("*/run")
    return found


def _end(run_directory: Path) -> dict[str, Any]:
    """Returns all that the last checkpoint holds, with the transitions instead of the segments that they lie in."""
    newest = newest_checkpoint(run_directory)
    state = json.loads((newest / "state.json").read_text())
    for rank in state["ranks"]:
        rank["segments"] = _transitions(run_directory, rank)
    return {"state": state, "learner": (newest / "learner.safetensors").read_bytes()}


def _transitions(run_directory: Path, rank: dict[str, Any]) -> dict[str, bytes]:
    """Returns the columns of the transitions that a rank held; without the code under test."""
    folder = run_directory / "checkpoints" / "replay"
    parts = [
        safetensors.numpy.load(zstandard.ZstdDecompressor().decompress((folder / segment["file"]).read_bytes()))
        for segment in rank["segments"]
    ]
    return {name: np.concatenate([part[name] for part in parts])[-rank["stored"] :].tobytes() for name in parts[0]}


@pytest.mark.parametrize(
    ("kind", "ranks"),
    [
        *(("one loop", 2), ("native", 3)),
        *(pytest.param(kind, ranks, marks=pytest.mark.slow) for kind in KINDS for ranks in (1, 2, 3)),
    ],
)
def test_a_run_that_saves_often_and_one_that_never_does_end_in_the_same_bytes(
    kind: str, ranks: int, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Weights, replay, counters, generators and the open episodes; also where the first is resumed in its middle."""
    for period, name in ((OFTEN, "often"), (NEVER, "never")):
        persistent_ranks.run_well(ranks, *RUN, *SHORT, *KINDS[kind], *period, "--runs-dir", tmp_path / name)
    often, never = _run_directory(tmp_path / "often"), _run_directory(tmp_path / "never")
    end = _end(never)
    assert _end(often) == end
    for later in checkpoints(often)[1:]:
        shutil.rmtree(later)
    resumed = persistent_ranks.run_well(ranks, "--resume", often, *NEVER)
    assert "resumed from the checkpoint at env step 504" in resumed.output
    assert "open episodes" not in resumed.output
    assert _end(often) == end


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(
    kind: str, ranks: int, tmp_path: Path, injected: Any
) -> None:
    """SIGKILL of a random rank; the whole run makes no checkpoint at all before its end."""
    options = (*RUN, *LONG, *KINDS[kind])
    run_well("mpirun", ranks, *options, *NEVER, "--runs-dir", tmp_path / "whole")
    rng, resume = random.Random(f"{kind} {ranks}"), ("--resume", "auto")
    for _ in range(6 if FULL else 2):
        with launched("mpirun", ranks, *options, *OFTEN, *resume, "--runs-dir", tmp_path / "killed") as job:
            job.wait_until(lambda: "env steps (" in job.output, 120.0, "training had begun")
            time.sleep(rng.uniform(0.0, 2.0))
            if job.process.poll() is not None:
                break
            injected("rank killed by SIGKILL between two checkpoints")
            os.kill(_interpreter(job, rng.randrange(ranks)), signal.SIGKILL)
            assert job.finish(60.0).code != 0
    last = run_well("mpirun", ranks, *options, *OFTEN, *resume, "--runs-dir", tmp_path / "killed")
    assert "open episodes" not in last.output
    assert _end(_run_directory(tmp_path / "killed")) == _end(_run_directory(tmp_path / "whole"))


def _interpreter(job: Launch, rank: int) -> int:
    """Returns the process id of a rank, not of its environments' processes."""
    own = [pid for pid, other in job.python_processes().items() if other == rank]
    (found,) = [pid for pid in own if psutil.Process(pid).ppid() not in own]
    return found


@pytest.mark.parametrize("kind", ["one loop", pytest.param("native", marks=pytest.mark.slow)])
def test_on_another_number_of_ranks_every_environment_continues_its_open_episode(
    kind: str, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """After one more iteration each is one step further, or has begun its next episode if it had ended."""
    persistent_ranks.run_well(2, *RUN, *SHORT, *KINDS[kind], "--runs-dir", tmp_path)
    run_directory = _run_directory(tmp_path)
    before = _open_episodes(run_directory)
    resumed = persistent_ranks.run_well(3, "--resume", run_directory, "--total-env-steps", "1506")
    assert "open episodes" not in resumed.output
    after = _open_episodes(run_directory)
    assert len(before) == len(after) == 6
    assert any(episode["length"] > 0 for episode in before)
    for old, new in zip(before, after, strict=True):
        if old["ended"]:
            assert (new["number"], new["length"], new["ended"]) == (old["number"] + 1, 0, False)
        else:
            assert new["number"] == old["number"]
            assert new["ended"] or new["length"] == old["length"] + 1


def _open_episodes(run_directory: Path) -> list[dict[str, Any]]:
    """Returns the open episodes of the newest checkpoint by global environment."""
    state = json.loads((newest_checkpoint(run_directory) / "state.json").read_text())
    return [episode for rank in state["ranks"] for episode in rank["open_episodes"]["episodes"]]


def test_an_environment_that_is_not_deterministic_is_named_on_all_ranks_with_the_remedy(
    persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """With the remedy the run goes on."""
    options = (*RUN, *SHORT, "--env", "saved_envs:NotDeterministic-v0", "--runs-dir", tmp_path)
    persistent_ranks.run_well(2, *options)
    more = ("--resume", _run_directory(tmp_path), "--total-env-steps", "1512")
    refused = persistent_ranks.run(2, *more)
    assert refused.code == 2, refused.output
    for rank, env in ((0, 0), (1, 3)):
        assert f"rank {rank}: environment {env} is not deterministic" in refused.output
    assert "--checkpoint-boundary reset" in refused.output
    assert "Traceback" not in refused.output
    persistent_ranks.run_well(2, *more, "--checkpoint-boundary", "reset")
