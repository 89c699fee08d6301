"""Laws of exported networks: read by their own runtime, without this package, they act as the trained agent does."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from hvd_dqn.algorithms.dqn import DQN
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import RankFailure, UserError
from hvd_dqn.export.check import agreement, random_observations
from hvd_dqn.export.export import export, report
from hvd_dqn.export.formats import FORMATS, check_installed
from hvd_dqn.export.stock import stock_model
from hvd_dqn.learner.action_values import TensorFlowActionValues
from hvd_dqn.training.agent import build_network
from hvd_dqn.training.trained import Trained

from .learners import BYTE, FLOAT, INT

BOOL = np.dtype(np.bool_)
ACTIONS, OBSERVATIONS, AT_ONCE = 3, 10_000, 1000
ALGORITHMS: dict[str, dict[str, Any]] = {
    "dqn": {},
    "munchausen": {},
    "c51": {"atoms": 7, "value_min": -1.0, "value_max": 3.0},
    "hl-gauss": {"atoms": 7, "value_min": -1.0, "value_max": 3.0},
    "qr": {"quantiles": 5},
    "iqn": {},
    "munchausen-iqn": {},
    "decqn": {},
}
JOINTS: dict[str, Any] = {"joint_bins": (ACTIONS, ACTIONS - 1)}
"""Of the spaces of decqn's agents."""


def spaces(
    shape: tuple[int, ...], dtype: np.dtype, *, categories: int = 0, masked: bool = False, **more: Any
) -> Spaces:
    """Returns the spaces of an environment with three actions."""
    plain = Spaces(shape, dtype, categories, ACTIONS, **more)
    if not masked:
        return plain
    stored = (int(np.prod(shape)) + ACTIONS,)
    return dataclasses.replace(plain, observation_shape=stored, unmasked_shape=shape, mask_source="infos")


def trained(own: Spaces, algorithm: str = "dqn", **flags: Any) -> Trained:
    """Returns an agent with random parameters, of whose actions each is the best one somewhere."""
    config = replace(Config(), {"algorithm": algorithm, "hidden_sizes": (16,)} | ALGORITHMS[algorithm] | flags)
    network, rule, name = build_network(config, SingleCommunicator(), own)
    parameters = network.initial_parameters()
    parameters += np.random.default_rng(1).normal(scale=0.1, size=parameters.shape).astype(np.float32)
    values = TensorFlowActionValues(network, rule, parameters)
    made: Any = None  # no environment is asked
    agent = Trained(config, made, own, network, name, rule, values, parameters, 4_000, 12.5, [])
    if not rule.has_value_range:
        inputs = random_observations(own, 300, seed=1)
        mean = values_of(agent, (inputs[0], *(np.ones_like(mask) for mask in inputs[1:]))).mean(axis=0)
        mean = np.where(np.isfinite(mean), mean, 0.0).ravel()  # [A] or [J * A]
        size = len(mean) * rule.outputs_per_action
        views = network.layout.views(parameters)
        biases = [view for layer, view in views.items() if "dense" in layer and layer.endswith("/bias")]
        last = [bias for bias in biases if bias.size == size][-1]
        last -= np.repeat(mean, rule.outputs_per_action)
        values.load(parameters)
    return agent


def values_of(agent: Trained, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """Returns the agent's own action values [N, A]."""
    packed = inputs[0]
    if len(inputs) > 1:
        flat = inputs[0].reshape(len(inputs[0]), -1)
        packed = np.concatenate([flat, inputs[1]], axis=1).astype(flat.dtype)
    return np.concatenate([agent.values(packed[i : i + AT_ONCE]) for i in range(0, len(packed), AT_ONCE)])


VECTOR, GREY, GRID = spaces((4,), FLOAT), spaces((36, 36), BYTE), spaces((6, 6, 2), BYTE, largest_integer=3)
CASES: dict[str, tuple[Spaces, dict[str, Any]]] = {
    "masks": (spaces((4,), FLOAT, masked=True), {"algorithm": "dqn", "dueling": True}),
    "minatar": (GRID, {"algorithm": "munchausen", "network": "minatar", "noisy": True}),
    "nature": (GREY, {"algorithm": "c51", "network": "cnn", "dueling": True, "noisy": True}),
    "category": (spaces((), INT, categories=9, masked=True), {"algorithm": "hl-gauss"}),
    "impala": (GRID, {"algorithm": "qr", "network": "impala", "layer_norm": True, "spectral_norm": True}),
    "flags": (spaces((5, 5, 2), BOOL, masked=True), {"algorithm": "iqn", "network": "minatar", "dueling": True}),
    "bytes": (spaces((7,), BYTE), {"algorithm": "munchausen-iqn", "network": "mlp", "noisy": True}),
    "joints": (spaces((4,), FLOAT, **JOINTS), {"algorithm": "decqn", "dueling": True}),
}
"""Every algorithm and network; each of dueling, noisy and masks with several."""
READERS = {
    "keras": "import keras\nmodel = keras.models.load_model(path)\nread = lambda *x: np.asarray(model(one_or_list(x)))",
    "saved-model": "import tensorflow as tf\nmodel = tf.saved_model.load(path)\n"
    "read = lambda *x: model.serve(one_or_list(x)).numpy()",
    "onnx": "import onnxruntime\nsession = onnxruntime.InferenceSession(path)\n"
    "read = lambda *x: session.run(None, dict(zip(['observation', 'action_mask'], x)))[0]",
    "safetensors": "import importlib.util\n"
    "spec = importlib.util.spec_from_file_location('reader', path.replace('model.safetensors', 'numpy_network.py'))\n"
    "reader = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(reader)\nread = reader.load(path)",
}
"""How another program reads each format; the test's own words, not the package's."""
PROGRAM = """
import json, os, sys
for name in json.loads(sys.argv[2]): sys.modules[name] = None
import numpy as np
one_or_list = lambda x: list(x) if len(x) > 1 else x[0]
for path, code, inputs, outputs in json.loads(sys.argv[1]):
    exec(code)
    with np.load(inputs) as file: columns = [file[name] for name in sorted(file.files)]
    parts = [read(*(column[start:start + 1000] for column in columns)) for start in range(0, len(columns[0]), 1000)]
    np.save(outputs, np.concatenate(parts))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Returns the agent's action values and those that another program computes, by case and format."""
    folder = tmp_path_factory.mktemp("exports")
    tasks, expected = [], {}
    for case, (own, flags) in CASES.items():
        agent = trained(own, **flags)
        inputs = random_observations(own, OBSERVATIONS, seed=5)
        np.savez(folder / f"{case}.npz", **{f"input_{number}": part for number, part in enumerate(inputs)})
        expected[case] = values_of(agent, inputs)
        for name in FORMATS:
            written = export(agent, str(folder), name, str(folder / f"{case}-{name}"), force=False)
            path = str(written.folder / FORMATS[name].file)
            tasks.append((path, READERS[name], str(folder / f"{case}.npz"), str(folder / f"{case}-{name}.npy")))
    for numpy_alone in (False, True):
        own_tasks = [task for task in tasks if task[0].endswith(".safetensors") == numpy_alone]
        absent = ["hvd_dqn", *(["tensorflow", "keras", "onnxruntime"] if numpy_alone else [])]
        command = [sys.executable, "-c", PROGRAM, json.dumps(own_tasks), json.dumps(absent)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return {
        (case, name): (expected[case], np.load(folder / f"{case}-{name}.npy")) for case in CASES for name in FORMATS
    }


def assert_same(expected: np.ndarray, found: np.ndarray) -> None:
    """Checks values, and greedy actions wherever the two best values differ by more than rounding."""
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    scale = np.abs(expected[np.isfinite(expected)]).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)
    actions = expected.shape[-1]
    expected, found = expected.reshape(-1, actions), found.reshape(-1, actions)  # each joint by itself
    second, best = np.sort(expected, axis=1)[:, -2:].T
    clear = best - second > 1e-4 * scale
    assert clear.mean() > 0.9  # a distribution's mean may be the largest atom for several actions
    np.testing.assert_array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])
    assert len(np.unique(expected.argmax(axis=1))) > 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_another_program_takes_the_same_greedy_actions(case: str, name: str, exported: Any) -> None:
    """On 10,000 observations, in a process that cannot import this package; in NumPy's, TensorFlow neither."""
    assert_same(*exported[case, name])


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "cnn", "minatar", "impala"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_and_network_acts_the_same_in_every_format(
    algorithm: str, network: str, tmp_path: Path
) -> None:
    shape = {"mlp": (4,), "cnn": (36, 36, 2)}.get(network, (6, 6, 2))
    for number, (dueling, noisy, masked) in enumerate([(False, True, True), (True, False, False)]):
        joints = JOINTS if algorithm == "decqn" else {}
        own = spaces(shape, FLOAT if network == "mlp" else BYTE, masked=masked and not joints, **joints)
        agent = trained(own, algorithm, network=network, dueling=dueling, noisy=noisy)
        inputs = random_observations(own, OBSERVATIONS, seed=number)
        expected = values_of(agent, inputs)
        model = stock_model(agent)
        for name, chosen in FORMATS.items():
            path = tmp_path / str(number) / name
            path.mkdir(parents=True)
            chosen.write(model, path / chosen.file)
            read = chosen.load(path / chosen.file)
            parts = [read(*(part[i : i + AT_ONCE] for part in inputs)) for i in range(0, OBSERVATIONS, AT_ONCE)]
            assert_same(expected, np.concatenate(parts))


def test_a_row_of_zeros_in_a_mask_allows_every_action() -> None:
    """As for the learner: a mask of zeros comes with the end of an episode."""
    own = spaces((4,), FLOAT, masked=True)
    agent = trained(own)
    observation = np.ones((3, 4), np.float32)
    mask = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0]], np.int8)
    values = np.asarray(stock_model(agent)([observation, mask]))
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[2], [-np.inf, values[1, 1], -np.inf])


def test_safetensors_hold_the_weights_under_the_names_of_a_checkpoint(tmp_path: Path) -> None:
    """A noisy network's means; convolutions and dense layers are not changed."""
    agent = trained(GREY, network="cnn", noisy=True)
    written = export(agent, "", "safetensors", str(tmp_path / "out"), force=False)
    found = safetensors.numpy.load_file(written.folder / "model.safetensors")
    views = agent.network.layout.views(agent.parameters)
    assert found.keys() == {name for name in views if not name.endswith("_sigma")}
    for name, weights in found.items():
        np.testing.assert_array_equal(weights, views[name])


def test_model_json_says_what_the_file_is(tmp_path: Path) -> None:
    agent = trained(spaces((), INT, categories=9, masked=True), "c51")
    written = export(agent, "", "keras", str(tmp_path / "out"), force=False)
    about = json.loads((written.folder / "model.json").read_text())
    assert about.pop("hvd_dqn")[0].isdigit()
    assert about == {
        "env": "CartPole-v1",
        "env_kwargs": {},
        "protocol": "own",
        "actions": 3,
        "observation": {"shape": [], "dtype": "int32", "categories": 9},
        "action_mask": True,
        "algorithm": "c51",
        "network": "mlp",
        "env_steps": 4_000,
        "score": 12.5,
        "format": "keras",
        "file": "model.keras",
    }


@pytest.mark.parametrize("name", ["keras", "saved-model", "safetensors", "onnx"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_printed_lines_load_what_was_written(
    name: str, masked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = spaces((4,), FLOAT, masked=masked)
    agent = trained(own)
    inputs = random_observations(own, 5)
    text = report(export(agent, "", name, str(tmp_path / "out"), force=False))
    assert "checked: 512 observations, the same greedy actions, largest difference " in text
    lines = [line.removeprefix("  ") for line in text.split("\n") if line.startswith("  ")]
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.syspath_prepend(str(tmp_path / "out"))
    known: dict[str, Any] = dict(zip(("observation", "action_mask"), inputs, strict=False))
    exec("\n".join(lines), known)
    monkeypatch.delitem(sys.modules, "numpy_network", raising=False)
    np.testing.assert_allclose(np.asarray(known["action_values"]), values_of(agent, inputs), rtol=1e-4)


def test_what_computes_something_else_is_not_written(tmp_path: Path) -> None:
    """And an export that is to be replaced stays as it was."""
    agent = trained(VECTOR)
    folder = tmp_path / "out"
    export(agent, "", "keras", str(folder), force=False)
    before = (folder / "model.keras").read_bytes()
    other = dataclasses.replace(agent, parameters=agent.parameters * 1.01)
    with pytest.raises(RankFailure, match="does not compute what the trained agent does, and nothing was written"):
        export(other, "", "keras", str(folder), force=True)
    with pytest.raises(RankFailure):
        export(other, "", "keras", str(tmp_path / "new"), force=False)
    assert (folder / "model.keras").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_networks_of_other_shapes_or_masks_do_not_agree() -> None:
    agent = trained(VECTOR)
    inputs = random_observations(VECTOR, 20)
    assert agreement(agent.values, agent, inputs).sufficient
    for wrong in (lambda s: agent.values(s)[:, :2], lambda s: agent.values(s) - np.inf, lambda s: agent.values(-s)):
        assert not agreement(wrong, agent, inputs).sufficient


def test_actions_of_the_same_value_may_be_exchanged_and_worse_ones_may_not() -> None:
    """As where a distribution's range ends: the means of several actions differ by rounding alone."""
    agent = trained(VECTOR)
    inputs = random_observations(VECTOR, 20)
    for step, sufficient in ((1e-7, True), (1e-4, False)):
        rising = np.tile(np.array([1.0, 1.0 + step, 1.0 + 2 * step], np.float32), (20, 1))
        values: Any = lambda s, rising=rising: rising[: len(s)]  # noqa: E731
        made = dataclasses.replace(agent, values=values)
        found = agreement(lambda s, rising=rising: rising[: len(s), ::-1], made, inputs)
        assert (found.other_actions, found.sufficient) == (20, sufficient)


def test_an_export_is_replaced_only_if_that_is_asked_for(tmp_path: Path) -> None:
    agent = trained(VECTOR)
    run = tmp_path / "run"
    written = export(agent, str(run), "safetensors", "", force=False)
    assert written.folder == run / "export" / "safetensors-000000004000"
    with pytest.raises(UserError, match="exists already: add --force"):
        export(agent, str(run), "safetensors", "", force=False)
    export(dataclasses.replace(agent, score=99.0), str(run), "safetensors", "", force=True)
    assert json.loads((written.folder / "model.json").read_text())["score"] == 99.0
    assert [path.name for path in (run / "export").iterdir()] == [written.folder.name]
    with pytest.raises(UserError, match="is no export"):
        export(agent, str(run), "safetensors", str(run), force=True)
    assert written.folder.is_dir()


@pytest.mark.parametrize(
    ("place", "output", "message"),
    [
        ("s3://bucket/run", "", "give the folder to write with --output"),
        ("run", "policy.onnx", "--output policy.onnx looks like a file"),
        ("run", "/proc/none/policy", "cannot write /proc/none/policy: No such file or directory. Give another folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(place: str, output: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(trained(VECTOR), place, "safetensors", output, force=False)


OWN_LAYER = """
import keras

class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x

def build(spec):
    inputs = keras.Input(spec.observation_shape)
    x = Doubled(name="doubled")(inputs) if {own} else keras.layers.LeakyReLU(name="leaky")(inputs)
    return keras.Model(inputs, keras.layers.Dense(spec.num_actions)(x))
"""


def test_layers_of_the_users_own_need_a_format_that_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "own_layer.py"
    file.write_text(OWN_LAYER.format(own=True))
    agent = trained(VECTOR, network=f"{file}:build")
    for name in ("keras", "safetensors"):
        with pytest.raises(UserError, match="the layer 'doubled' is code of your own"):
            export(agent, "", name, str(tmp_path / name), force=False)
    export(agent, "", "saved-model", str(tmp_path / "out"), force=False)


class PlainTensorFlow(DQN):
    """An algorithm of the user's, whose action values are computed by TensorFlow."""

    def action_values(self, outputs: Any) -> tf.Tensor:
        """Returns the outputs."""
        return tf.identity(outputs)


def test_an_algorithm_of_the_users_own_is_exported_too(tmp_path: Path) -> None:
    agent = dataclasses.replace(trained(VECTOR), algorithm=PlainTensorFlow("mse", double=False))
    with pytest.raises(UserError, match="the layer 'algorithm' is code of your own"):
        export(agent, "", "keras", str(tmp_path / "keras"), force=False)
    assert "the same greedy actions" in export(agent, "", "onnx", str(tmp_path / "onnx"), force=False).checked


def test_a_stock_layer_that_numpy_does_not_know_needs_another_format(tmp_path: Path) -> None:
    file = tmp_path / "stock_layer.py"
    file.write_text(OWN_LAYER.format(own=False))
    agent = trained(VECTOR, network=f"{file}:build")
    with pytest.raises(UserError, match="the layer 'leaky' of the network, a LeakyReLU"):
        export(agent, "", "safetensors", str(tmp_path / "out"), force=False)
    export(agent, "", "keras", str(tmp_path / "out"), force=False)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UserError, match=r"needs the extra \[onnx\]: pip install 'hvd-dqn\[onnx\]' \(no tf2onnx here\)"):
        check_installed("onnx")
    check_installed("keras")
