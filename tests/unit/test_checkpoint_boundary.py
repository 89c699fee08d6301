"""Laws of open episodes across checkpoints, on one rank: saving leaves no trace, and a resume goes on exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import train
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.errors import EXIT_REQUEUE, UserError
from hvd_dqn.learner.learner import state_of
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.job import Job
from hvd_dqn.training.run import run_job

from .toy_environments import register_toys

register_toys()
CONFIG: dict[str, Any] = {
    "num_envs": 6,
    "total_env_steps": 2400,
    "learning_starts": 300,
    "train_period": 4,
    "global_batch_size": 16,
    "replay_capacity": 1500,
    "hidden_sizes": (8,),
    "target_update_period": 50,
    "log_period": 250,
    "evaluation_period": 0,
    "checkpoint_period": 500,
    "keep_checkpoints": 100,
    "final_evaluation_episodes": 1,
    "progress": "plain",
    "name": "run",
}
KINDS: dict[str, dict[str, Any]] = {
    "one loop": {"env": "CartPole-v1", "vectorization": "sync"},
    "processes": {"env": "CartPole-v1", "vectorization": "async"},
    "native": {"env": "CartPole-v1", "vectorization": "native"},
    "states": {"env": "Resumable-v0", "vectorization": "sync"},
}
NEVER = {"checkpoint_period": 10**9}


def _run(folder: Path, **changes: Any) -> dict[str, Any]:
    """Trains to the end; returns all that a run leaves to the future."""
    config = replace(Config(), CONFIG | {"runs_dir": str(folder)} | changes)
    ends: list[dict[str, Any]] = []

    def watched(job: Job) -> bool:
        done = train.train(job)
        ends.append(_end(job))
        return done

    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    assert run_job(config, runtime, StopRequest(), [train.__file__], watched) == 0
    return ends[0]


def _stop_after(iterations: int, folder: Path, **changes: Any) -> None:
    """Trains for a few iterations, then stops and saves, as on a scheduler's signal."""
    config = replace(Config(), CONFIG | {"runs_dir": str(folder)} | changes)
    stop = StopRequest()

    def hurried(job: Job) -> bool:
        stop.requested = True  # ends each call after one iteration
        for _ in range(iterations):
            assert not train.train(job)
        return False

    runtime = Runtime(SingleCommunicator(), 1, "CPU", False)
    assert run_job(config, runtime, stop, [train.__file__], hurried) == EXIT_REQUEUE


def _end(job: Job) -> dict[str, Any]:
    return {
        "learner": {name: vector.tobytes() for name, vector in state_of(job.learning.learner).items()},
        "replay": [column.tobytes() for column in job.learning.replay.contents()],
        "shared": job.shared_state(),
        "generators": {name: rng.bit_generator.state for name, rng in job.generators.items()},
        "episodes": job.acting.collector.state().to_json(),
    }


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/run/checkpoints/*/manifest.json"))


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_leave_no_trace_and_a_resume_from_any_goes_on_exactly(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that saves every 500 env steps, one that never does, and those that are resumed end in the same bytes."""
    end = _run(tmp_path / "a", **KINDS[kind])
    assert any(episode["length"] > 0 for episode in end["episodes"]["episodes"])
    assert _run(tmp_path / "never", **KINDS[kind], **NEVER) == end
    (run_directory,) = (tmp_path / "a").glob("*/run")
    places = _checkpoints(tmp_path / "a")
    assert [int(place.name) for place in places] == [504, 1002, 1500, 2004, 2400]
    for place in (places[2], places[0]):  # of a run that was killed between this checkpoint and the next
        for later in _checkpoints(tmp_path / "a"):
            if later > place:
                shutil.rmtree(later)
        resumed = _run(tmp_path / "a", **KINDS[kind], **NEVER, resume=str(run_directory))
        assert resumed == end, place.name
        assert "open episodes" not in capsys.readouterr().out


def test_a_run_stopped_between_two_checkpoints_goes_on_exactly(tmp_path: Path) -> None:
    """Stopped after each of many iterations in a row: in some of them episodes end or are about to begin."""
    end = _run(tmp_path / "whole", **KINDS["one loop"], **NEVER)
    resume: dict[str, Any] = {}
    for iterations in (100, *[1] * 6):
        _stop_after(iterations, tmp_path / "parts", **KINDS["one loop"], **NEVER, **resume)
        (run_directory,) = (tmp_path / "parts").glob("*/run")
        resume = {"resume": str(run_directory)}
    assert _run(tmp_path / "parts", **KINDS["one loop"], **NEVER, **resume) == end


def test_with_reset_a_checkpoint_is_a_boundary_here_and_in_a_resume(tmp_path: Path) -> None:
    """The exact resume of environments that cannot be continued; then the checkpoints' period is no matter of taste."""
    changes = {"env": "Forgetful-v0", "env_kwargs": '{"kind": "number"}', "checkpoint_boundary": "reset"}
    end = _run(tmp_path / "a", **changes)
    (run_directory,) = (tmp_path / "a").glob("*/run")
    shutil.rmtree(_checkpoints(tmp_path / "a")[-1])
    assert _run(tmp_path / "a", **changes, resume=str(run_directory)) == end
    assert _run(tmp_path / "never", **changes, **NEVER) != end
    state = json.loads((_checkpoints(tmp_path / "a")[0] / "state.json").read_text())
    assert state["ranks"][0]["open_episodes"] is None


@pytest.mark.parametrize("env", ["Forgetful-v0", "Counting-v0"])
def test_an_environment_that_is_not_deterministic_ends_the_resume_with_the_remedy(
    env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or that has a state which outlives its episodes, as one that counts them."""
    changes = {"env": env}
    _run(tmp_path, **changes)
    (run_directory,) = tmp_path.glob("*/run")
    shutil.rmtree(_checkpoints(tmp_path)[-1])
    with pytest.raises(UserError, match=r"environment 0 is not deterministic.*--checkpoint-boundary reset"):
        _run(tmp_path, **changes, resume=str(run_directory))
    _run(tmp_path, **changes, resume=str(run_directory), checkpoint_boundary="reset")
    assert "open episodes" not in capsys.readouterr().out


def test_environments_that_are_added_begin_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path, **KINDS["one loop"])
    (run_directory,) = tmp_path.glob("*/run")
    changes = {**KINDS["one loop"], "resume": str(run_directory)}
    end = _run(tmp_path, **changes, num_envs=8, total_env_steps=2416)
    assert "open episodes: 6 of 8 environments continue theirs, the others begin new ones" in capsys.readouterr().out
    assert [episode["number"] == 2400 for episode in end["episodes"]["episodes"]] == [False] * 6 + [True] * 2
    end = _run(tmp_path, **changes, num_envs=3, total_env_steps=2422)
    assert "open episodes" not in capsys.readouterr().out
    assert len(end["episodes"]["episodes"]) == 3


def test_environments_that_cannot_be_saved_lose_their_episodes_on_a_resume_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """EnvPool's: a checkpoint leaves no trace in the running job."""
    pytest.importorskip("envpool")
    changes = {"env": "CartPole-v1", "vectorization": "envpool"}
    end = _run(tmp_path / "a", **changes)
    assert _run(tmp_path / "never", **changes, **NEVER) == end
    (run_directory,) = (tmp_path / "a").glob("*/run")
    _run(tmp_path / "a", **changes, resume=str(run_directory), total_env_steps=2412)
    assert "open episodes: 0 of 6 environments continue theirs, the others begin new ones" in capsys.readouterr().out


def test_evaluations_do_not_disturb_the_training_environments(tmp_path: Path) -> None:
    """Nor does the best checkpoint that one may write."""
    ends = [
        _run(tmp_path / str(period), **KINDS["one loop"], **NEVER, evaluation_period=period, evaluation_episodes=2)
        for period in (0, 400)
    ]
    best_scores = [end["shared"].pop("best_score") for end in ends]
    assert best_scores[0] is None
    assert best_scores[1] is not None
    assert ends[0] == ends[1]
