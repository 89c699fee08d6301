"""Laws of parts of the user's own, module:name: what fits trains and resumes, and what does not is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from .whole_runs import QUICK, run

SOURCE = """
import keras
import tensorflow as tf

from hvd_dqn.algorithms.base import Losses
from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.replay.ring import RingReplay

class Zero(DQN):
    def loss(self, online, target, batch, noise):
        q = tf.reduce_sum(online(batch.s_tm1), axis=1)
        return Losses(0.0 * q, tf.abs(q), q)

class Whole:
    outputs_per_action, takes_fractions, has_value_range = 1, False, False

class Asks(DQN):
    def __init__(self, gama):
        pass

class Leaves(DQN):
    def __init__(self):
        raise SystemExit(3)

class Newest(RingReplay):
    pass

class NoReplay:
    pass

def good(spec):
    inputs = keras.Input(spec.observation_shape)
    x = keras.layers.Dense(4, activation="tanh", name="own")(inputs)
    return keras.Model(inputs, keras.layers.Dense(spec.num_actions, name="last")(x))

def wrong_outputs(spec):
    inputs = keras.Input(spec.observation_shape)
    return keras.Model(inputs, keras.layers.Dense(spec.num_actions + 1)(inputs))

def wrong_inputs(spec):
    inputs = keras.Input((9,))
    return keras.Model(inputs, keras.layers.Dense(spec.num_actions)(inputs))

def without_weights(spec):
    inputs = keras.Input(spec.observation_shape)
    return keras.Model(inputs, keras.layers.Lambda(lambda x: x[:, :spec.num_actions])(inputs))

def no_model(spec):
    return "a model"

def raises(spec):
    raise SystemExit(3)
"""
REFUSED_ALGORITHMS = {
    "Whole": "lacks action_values, loss: see the class Algorithm in hvd_dqn/algorithms/base.py",
    "Asks": "raised TypeError: Asks.__init__() missing 1 required positional argument: 'gama'",
    "Leaves": "raised SystemExit: 3",
    "Zerro": "has no class 'Zerro' (did you mean 'Zero'?)",
}
REFUSED = {
    "wrong_outputs": "has outputs of shape [(None, 3)], and one of shape (None, 2) is needed for 2 actions",
    "wrong_inputs": "has inputs of shape [(None, 9)], and [(None, 4)] are needed",
    "without_weights": "has no weights that can be trained",
    "no_model": "returned a str: it must take a NetworkSpec and return a keras.Model",
    "raises": "raised SystemExit: 3",
    "goood": "has no function 'goood' (did you mean 'good'?)",
}
GENERAL = (*QUICK, "--total-env-steps", "60")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Returns a file with networks."""
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return path


def test_a_network_of_the_users_trains_and_resumes(file: Path, tmp_path: Path) -> None:
    ended = run(*GENERAL, "--network", f"{file}:good", "--runs-dir", str(tmp_path), "--name", "run")
    assert ended.code == 0, ended.printed
    assert "30 parameters" in ended.printed
    resumed = run("--resume", str(tmp_path / "CartPole-v1" / "run"), "--total-env-steps", "120")
    assert resumed.code == 0, resumed.printed
    assert "resumed from the checkpoint at env step 60" in resumed.printed


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str, file: Path, tmp_path: Path) -> None:
    ended = run(*GENERAL, "--network", f"{file}:{name}", "--runs-dir", str(tmp_path))
    assert ended.code == 2, ended.printed
    assert REFUSED[name] in ended.printed


@pytest.mark.parametrize("name", REFUSED_ALGORITHMS)
def test_an_algorithm_that_is_none_is_refused(name: str, file: Path, tmp_path: Path) -> None:
    ended = run(*GENERAL, "--algorithm", f"{file}:{name}", "--runs-dir", str(tmp_path))
    assert ended.code == 2, ended.printed
    assert REFUSED_ALGORITHMS[name] in ended.printed


def test_a_replay_that_is_none_is_refused(file: Path, tmp_path: Path) -> None:
    ended = run(*GENERAL, "--replay", f"{file}:NoReplay", "--runs-dir", str(tmp_path))
    assert ended.code == 2, ended.printed
    assert "lacks prioritized, True or False: see the class Replay in hvd_dqn/replay/base.py" in ended.printed


def test_an_algorithm_and_a_replay_of_the_users_train_and_resume(file: Path, tmp_path: Path) -> None:
    """Not by the native learner, though they inherit from what it knows: with a loss of zero nothing is learned."""
    own = ("--algorithm", f"{file}:Zero", "--replay", f"{file}:Newest")
    ended = run(*GENERAL, *own, "--runs-dir", str(tmp_path), "--name", "run")
    assert ended.code == 0, ended.printed
    resumed = run("--resume", str(tmp_path / "CartPole-v1" / "run"), "--total-env-steps", "120")
    assert resumed.code == 0, resumed.printed
    first, last = (
        load_file(tmp_path / "CartPole-v1" / "run" / "checkpoints" / name / "learner.safetensors")["online"]
        for name in ("000000000060", "000000000120")
    )
    np.testing.assert_array_equal(first, last)


def test_a_module_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    ended = run(*GENERAL, "--network", "no_such_nets:good", "--runs-dir", str(tmp_path))
    assert ended.code == 2
    assert "cannot import the module of --network no_such_nets:good" in ended.printed
    assert "./no_such_nets.py:function" in ended.printed
