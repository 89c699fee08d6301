"""Laws of hvd_dqn.train: a notebook trains, follows, stops and resumes as train.py does, and keeps its process."""

from __future__ import annotations

import doctest
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import hvd_dqn
from hvd_dqn.errors import UserError

from .whole_runs import QUICK, run

SHORT: dict[str, Any] = {
    **{"total_env_steps": 400, "learning_starts": 50, "num_envs": 2, "global_batch_size": 8, "hidden_sizes": (4,)},
    **{"evaluation_period": 0, "final_evaluation_episodes": 1, "log_period": 100, "checkpoint_period": 200},
    "progress": "off",
}
FLAGS = (
    *("--total-env-steps", "400", "--learning-starts", "50", "--num-envs", "2", "--global-batch-size", "8"),
    *("--hidden-sizes", "4", "--evaluation-period", "0", "--final-evaluation-episodes", "1", "--log-period", "100"),
    *("--checkpoint-period", "200", "--progress", "off"),
)


def _online(directory: str | Path) -> np.ndarray:
    return load_file(sorted(Path(directory).glob("checkpoints/0*"))[-1] / "learner.safetensors")["online"]


def test_a_run_of_a_program_is_that_of_the_command_line(tmp_path: Path) -> None:
    made = hvd_dqn.train(SHORT, runs_dir=tmp_path, name="program", double=True, env_kwargs={})
    ended = run(*FLAGS, "--double", "--runs-dir", tmp_path, "--name", "command")
    assert ended.code == 0, ended.printed
    np.testing.assert_array_equal(_online(made.place), _online(tmp_path / "CartPole-v1" / "command"))
    assert made.env_steps in (200, 400)
    observation, _ = made.environment().reset(seed=1)
    assert made.policy(observation) in (0, 1)
    assert len(made.metrics) == 5  # four of training, one of the final evaluation


def test_two_runs_of_a_process_give_their_weights_the_same_names(tmp_path: Path) -> None:
    names = []
    for name in ("first", "second"):
        ended = run(*QUICK, "--total-env-steps", "30", "--runs-dir", tmp_path, "--name", name)
        assert ended.code == 0, ended.printed
        (model, *_) = (tmp_path / "CartPole-v1" / name).glob("checkpoints/*/model.safetensors")
        names.append(sorted(load_file(model)))
    assert names[0] == names[1]
    assert "dense/kernel" in names[0]


def test_callbacks_see_each_line_and_may_stop_the_run_which_then_resumes(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def until_200(record: dict[str, Any]) -> bool:
        seen.append(record)
        return record["env_steps"] < 200

    stopped = hvd_dqn.train(SHORT, runs_dir=tmp_path, name="stopped", callbacks=[until_200])
    assert [record["env_steps"] for record in seen if record["kind"] == "training"] == [100, 200]
    assert stopped.env_steps < 400
    whole = hvd_dqn.train(resume=stopped.place)
    straight = hvd_dqn.train(SHORT, runs_dir=tmp_path, name="straight")
    np.testing.assert_array_equal(_online(whole.place), _online(straight.place))


def test_a_mistake_is_an_exception_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--n-step is 0: give at least 1"):
        hvd_dqn.train(SHORT, n_step=0, runs_dir=tmp_path)
    with pytest.raises(UserError, match=r"(?s)Unrecognized.*--lerning-rate"):
        hvd_dqn.train(SHORT, lerning_rate=0.1, runs_dir=tmp_path)
    with pytest.raises(UserError, match="no environment 'Absent-v0'"):
        hvd_dqn.train(SHORT, env="Absent-v0", runs_dir=tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_exception_of_a_callback_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        hvd_dqn.train(SHORT, runs_dir=tmp_path, callbacks=[lambda record: 1 / 0])
    hvd_dqn.train(SHORT, runs_dir=tmp_path)  # the process trains again


def test_an_interrupt_saves_and_stops_and_leaves_the_handler_as_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(record: dict[str, Any]) -> None:
        if record["env_steps"] == 200:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = hvd_dqn.train(SHORT, runs_dir=tmp_path, callbacks=[interrupt])
    assert stopped.env_steps < 400
    assert signal.getsignal(signal.SIGINT) is before


def test_under_a_launcher_it_names_train_py(tmp_path: Path) -> None:
    program = "import hvd_dqn; hvd_dqn.train(total_env_steps=100)"
    under = {**os.environ, "HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}
    ended = subprocess.run([sys.executable, "-c", program], env=under, capture_output=True, text=True, check=False)
    assert "on several ranks run train.py under the launcher" in ended.stderr


def test_the_examples_of_the_docstrings_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for documented in (hvd_dqn.train, hvd_dqn.Run):  # the second loads what the first has trained
        name = documented.__name__
        (example,) = doctest.DocTestFinder(recurse=False).find(documented, name, module=False, globs={})
        assert len(example.examples) >= 3
        said: list[str] = []
        result = doctest.DocTestRunner().run(example, out=said.append)
        assert result.failed == 0, "".join(said)
