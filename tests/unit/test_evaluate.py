"""Laws of hvd-dqn evaluate and of hvd_dqn.load: a trained agent plays as it did, from any place that names it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hvd_dqn
from hvd_dqn.cli import evaluate
from hvd_dqn.cli.evaluate import read
from hvd_dqn.errors import UserError
from hvd_dqn.statistics import interquartile_mean
from hvd_dqn.training.evaluate import summary

from .whole_runs import run_main

ROOT = Path(__file__).resolve().parents[2]
SHORT = (
    *(
        "--total-env-steps",
        "900",
        "--learning-starts",
        "100",
        "--evaluation-period",
        "300",
        "--checkpoint-period",
        "300",
    ),
    *(
        "--evaluation-episodes",
        "4",
        "--final-evaluation-episodes",
        "1",
        "--keep-checkpoints",
        "9",
        "--seed",
        "3",
        "--preset",
        "dqn",
    ),
)
PLAIN, NOISY = (), ("--algorithm", "c51", "--value-min", "0", "--value-max", "100", "--noisy", "--dueling")


def _train(folder: Path, name: str, *flags: str) -> Path:
    command = [sys.executable, str(ROOT / "train.py"), *SHORT, *flags, "--runs-dir", str(folder), "--name", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "CartPole-v1" / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    """Returns the directories of a run on each learner."""
    folder = tmp_path_factory.mktemp("runs")
    return {PLAIN: _train(folder, "plain", *PLAIN), NOISY: _train(folder, "noisy", *NOISY)}


def _evaluate(*arguments: object, code: int = 0) -> str:
    ended = run_main(evaluate.main, "hvd-dqn", *arguments)
    assert ended.code == code, ended.printed
    return ended.printed if code else ended.stdout


def _scores(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["env_steps"]: line["mean_return"] for line in lines if line["kind"] == "evaluation"}


def test_every_way_to_name_a_checkpoint_finds_it(runs: Any) -> None:
    run, scores = runs[PLAIN], _scores(runs[PLAIN])
    best = max(scores, key=lambda step: (scores[step], step))
    (folder,) = (run / "checkpoints").glob(f"{best:012d}*")
    found = [hvd_dqn.load(*place) for place in ((run,), (str(run), best), (folder,), (f"{folder}/",))]
    assert {one.env_steps for one in found} == {best}
    for one in found:
        np.testing.assert_array_equal(one.agent.parameters, found[0].agent.parameters)
    assert hvd_dqn.load(run, "last").env_steps == max(scores)


def test_an_evaluation_has_the_runs_epsilon(runs: Any, tmp_path: Path) -> None:
    """A random policy's return on CartPole is about 22, and the trained one's is not."""
    run = shutil.copytree(runs[PLAIN], tmp_path / "run")
    record = json.loads((run / "config.json").read_text())
    record["config"]["evaluation_epsilon"] = 1.0
    (run / "config.json").write_text(json.dumps(record))
    assert "40 episodes with epsilon 1 of CartPole-v1" in _evaluate(run, "--episodes", 40)
    assert 15 < json.loads(_evaluate(run, "--episodes", 40, "--json"))["mean_return"] < 30
    asked = json.loads(_evaluate(run, "--episodes", 40, "--epsilon", 0, "--json"))["returns"]
    assert asked == json.loads(_evaluate(runs[PLAIN], "--episodes", 40, "--json"))["returns"]


def test_the_human_normalised_score_of_a_game_is_one_of_the_statistics() -> None:
    assert summary(np.array([1.0, 2.0]), "ALE/Pong-v5")["human_normalised"] == pytest.approx(22.2 / 35.3)
    assert "human_normalised" not in summary(np.array([1.0, 2.0]), "CartPole-v1")


def test_the_statistics_are_those_of_the_returns(runs: Any) -> None:
    found = json.loads(_evaluate(runs[PLAIN], "--episodes", 9, "--json"))
    returns = np.array(found["returns"])
    assert found["mean_return"] == pytest.approx(returns.mean())
    assert (found["median"], found["min"], found["max"]) == (np.median(returns), returns.min(), returns.max())
    assert found["interquartile_mean"] == pytest.approx(np.sort(returns)[2:7].mean())
    assert found["low"] <= found["mean_return"] <= found["high"]
    text = _evaluate(runs[PLAIN], "--episodes", 9)
    assert f"mean return {returns.mean():.2f}, 95 % confidence interval" in text
    others = json.loads(_evaluate(runs[PLAIN], "--episodes", 9, "--json", "--seed", 4))["returns"]
    assert others != found["returns"]


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])) == 3.5
    assert interquartile_mean(np.array([7.0])) == 7.0
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "--episodes", "0"), "--episodes is 0: give at least 1"),
        (("RUN", "--epsilon", "1.5"), "--epsilon is 1.5: give a number from 0 to 1"),
        (("RUN", "--epsilon", "nan"), "--epsilon is nan: give a number from 0 to 1"),
        (("RUN", "--seed", "-7"), "--seed is -7: give an integer from 0 to"),
        (("RUN/none",), "RUN/none: no such directory"),
        (("RUN/tensorboard",), "RUN/tensorboard: not a run directory: no config.json in it"),
        (("s4://bucket/run",), "s4"),
        ((), "RUN"),
    ],
)
def test_what_is_no_run_is_refused_before_anything_starts(arguments: tuple[str, ...], message: str, runs: Any) -> None:
    run = str(runs[PLAIN])
    with pytest.raises(UserError) as refused:
        read([text.replace("RUN", run) for text in arguments])
    assert (message.replace("RUN", run) if arguments else "RUN") in str(refused.value)


@pytest.mark.parametrize(
    ("which", "message"), [("77", "give best, last or one of its env steps ("), ("newest", "no checkpoint 'newest' in")]
)
def test_a_checkpoint_that_is_not_there_is_refused(which: str, message: str, runs: Any) -> None:
    said = _evaluate(runs[PLAIN], "--checkpoint", which, code=2)
    assert said.startswith("hvd-dqn evaluate: no checkpoint ")
    assert message in said
    assert said.count("\n") == 1


def test_an_agent_plays_in_a_program_as_it_was_evaluated(runs: Any) -> None:
    """Also one with noisy layers, whose noise is left out."""
    for flags, run_directory in runs.items():
        run = hvd_dqn.load(run_directory, "last")
        assert run.env_steps == max(_scores(run_directory))
        assert run.config.algorithm.algorithm == (flags[1] if flags else "dqn")
        assert len(run.metrics) == len((run_directory / "metrics.jsonl").read_text().splitlines())
        env = run.environment()
        observations = np.stack([env.observation_space.sample() for _ in range(5)]).clip(-3, 3)
        values = run.action_values(observations)
        assert (values.shape, values.dtype) == ((5, 2), np.float32)
        np.testing.assert_array_equal(run.policy(observations), values.argmax(axis=1))
        np.testing.assert_allclose(run.action_values(observations[3]), values[3], rtol=1e-5)
        assert run.policy(observations[3]) == values[3].argmax()
        with pytest.raises(ValueError, match=r"observations of shape \(4,\) are taken"):
            run.action_values(np.zeros(3))


def test_weights_of_another_network_are_refused(runs: Any, tmp_path: Path) -> None:
    """As after an edit of config.json, or of the environment."""
    config = json.loads((runs[PLAIN] / "config.json").read_text())
    config["config"]["hidden_sizes"] = [32]
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copytree(runs[PLAIN] / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match="the network has changed since"):
        hvd_dqn.load(tmp_path)
