"""Laws of what rank 0 prints at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hvd_dqn.cli.entry import VERBS
from hvd_dqn.counters import Counters
from hvd_dqn.run.report import NEXT_VERBS, closing_summary, launcher_command, own_command

from .whole_runs import run_planned

HERE = str(Path(sys.executable).parent)


def _summary(path: str, launcher: list[str], env_id: str = "CartPole-v1", epsilon: float = 0.0) -> list[str]:
    text, _ = closing_summary(
        run_directory=Path(path),
        seconds=1.0,
        begun=Counters(env_steps=60, learner_steps=4),
        counters=Counters(env_steps=100, learner_steps=10),
        best_env_steps=None,
        returns=np.array([1.0, 2.0]),
        env_id=env_id,
        epsilon=epsilon,
        launcher=launcher,
        program="train.py",
    )
    return text.splitlines()


@pytest.mark.parametrize(
    ("ranks", "controller", "command"),
    [
        (1, "none (one rank)", "bin/python"),
        (4, "MPI", "bin/mpirun -np 4 bin/python"),
        (4, "Gloo", "bin/horovodrun --gloo -np 4 bin/python"),
    ],
)
def test_the_command_that_continues_has_the_runs_own_ranks_which_alone_end_bit_for_bit_the_same(
    ranks: int, controller: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(HERE).parent)
    last = _summary("runs/a", launcher_command(ranks, controller))[-1]
    assert last == f"  {command} train.py --resume runs/a --total-env-steps 200"


def test_a_path_with_a_space_is_quoted() -> None:
    *_, look, resume = lines = _summary("runs/a b", ["python"])
    for verb in NEXT_VERBS:
        assert any(line.endswith(f"hvd-dqn {verb} 'runs/a b'") for line in lines)
    assert look.endswith("tensorboard --logdir 'runs/a b'")
    assert "--resume 'runs/a b' " in resume


def test_this_job_and_the_run_are_told_apart() -> None:
    text = "\n".join(_summary("runs/a", ["python"]))
    assert "This job: 40 env steps and 6 learner steps in 1.0 s, evaluations included." in text
    assert "The run: 100 env steps and 10 learner steps." in text


def test_the_seconds_of_a_job_include_its_evaluations(tmp_path: Path) -> None:
    """Both evaluations take 0.3 s: the job takes no less than from its first step in training to its last one."""
    steps: list[float] = []

    def note(step: int) -> None:
        if step in (60, 80):
            time.sleep(0.3)
        if step > 0:
            steps.append(time.monotonic())

    once = ("--evaluation-period", "60", "--evaluation-episodes", "1")
    ended = run_planned(note, tmp_path, *once)
    assert ended.code == 0, ended.printed
    assert len(steps) == 58 + 2 * 20, "two of the env steps are resets"
    records = map(json.loads, (tmp_path / "Odd-v0" / "a" / "metrics.jsonl").read_text().splitlines())
    (final,) = (record for record in records if record["kind"] == "final_evaluation")
    assert final["seconds"] >= steps[-1] - steps[0]
    assert f"learner steps in {final['seconds']:.1f} s, evaluations included" in ended.stdout


def test_a_command_is_named_by_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_command("tensorboard") == f"{HERE}/tensorboard"
    monkeypatch.chdir(Path(HERE).parents[1])
    assert own_command("tensorboard") == os.path.join(*Path(HERE).parts[-2:], "tensorboard")


def test_the_advised_verbs_exist() -> None:
    assert set(NEXT_VERBS) <= VERBS.keys()
