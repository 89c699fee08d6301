"""Films during training change nothing: not the run's bytes, not its exit code, not the time of a stop."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from launching import checkpoints, launched, newest_checkpoint, run_well, timeless_metrics

pytestmark = pytest.mark.parallel

SHORT = (
    *("--total-env-steps", "800", "--learning-starts", "100", "--evaluation-period", "400", "--seed", "6"),
    *("--evaluation-episodes", "2", "--final-evaluation-episodes", "2", "--checkpoint-period", "200"),
    *("--keep-checkpoints", "9", "--progress", "off", "--name", "a"),
)
RECORD = ("--record-period", "200")
THEIRS = """
import os, signal, time
from gymnasium.envs.classic_control import CartPoleEnv
class Theirs(CartPoleEnv):
    def render(self):
        if os.environ["RENDERING"] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        open(os.environ["RENDERING"], "w").close()
        time.sleep(1000)
"""


def _weights(runs: Path) -> list[tuple[str, bytes, bytes]]:
    (run,) = (path.parent for path in runs.rglob("config.json"))
    return [
        (folder.name, (folder / "learner.safetensors").read_bytes(), (folder / "model.safetensors").read_bytes())
        for folder in checkpoints(run)
    ]


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[str, ...]:
    """Returns the flags of an environment whose pictures fail."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    return "--env", f"{tmp_path}/theirs.py:Theirs", "--vectorization", "sync"


def test_a_filmed_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    plain = run_well("mpirun", 2, *SHORT, "--runs-dir", tmp_path / "plain")
    filmed = run_well("mpirun", 2, *SHORT, *RECORD, "--runs-dir", tmp_path / "filmed")
    assert "film of env step" not in plain.output
    assert len(_weights(tmp_path / "plain")) > 2
    assert _weights(tmp_path / "plain") == _weights(tmp_path / "filmed")
    one, other = (tmp_path / name / "CartPole-v1" / "a" for name in ("plain", "filmed"))
    assert timeless_metrics(one) == timeless_metrics(other)
    state = "state.json"
    assert (newest_checkpoint(one) / state).read_bytes() == (newest_checkpoint(other) / state).read_bytes()
    films = sorted(path.name for path in (other / "videos").glob("*.mp4"))
    printed = [int(step.replace(",", "")) for step in re.findall(r"film of env step ([\d,]+): ", filmed.output)]
    assert films == [f"{step:012d}.mp4" for step in printed]
    assert films or "it was not finished when the run ended" in filmed.output  # on a busy machine


@pytest.mark.slow  # a test of one process shows a recording that fails
def test_a_recording_that_crashes_costs_one_warning(theirs: tuple[str, ...], tmp_path: Path) -> None:
    environ = {"RENDERING": "dies"}
    arguments = (*SHORT, *theirs, "--evaluation-step-limit", "200")
    run_well("mpirun", 2, *arguments, "--runs-dir", tmp_path / "plain", environ=environ)
    outcome = run_well("mpirun", 2, *arguments, *RECORD, "--runs-dir", tmp_path / "filmed", environ=environ)
    assert outcome.output.count("the recording at env step 208 failed, and no more are made") == 1, outcome.output
    assert outcome.output.count("recording at") == 1
    assert "exit code -9" in outcome.output
    assert _weights(tmp_path / "plain") == _weights(tmp_path / "filmed")


def test_a_stop_does_not_wait_for_a_recording_and_leaves_no_process(theirs: tuple[str, ...], tmp_path: Path) -> None:
    """`finish` fails if a process of the launch is left."""
    mark = tmp_path / "rendering"
    arguments = (*SHORT, *theirs, *RECORD, "--total-env-steps", "100000000", "--evaluation-period", "0")
    with launched("mpirun", 2, *arguments, "--runs-dir", tmp_path, environ={"RENDERING": str(mark)}) as launch:
        launch.wait_until(mark.exists, 300.0, "the recording rendered")
        (rank,) = (pid for pid, rank in launch.python_processes().items() if rank == 0)
        os.kill(rank, signal.SIGUSR1)
        outcome = launch.finish(60.0)
    assert "stopped and saved" in outcome.output
    assert "recording" not in outcome.output
