"""Laws of hvd-dqn export and hvd-dqn serve-example: what they write works, and bad input ends with the remedy."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import hvd_dqn
from hvd_dqn.cli import entry, export, serve_example
from hvd_dqn.export.export import export as write_export

from .learners import FLOAT, INT
from .test_export import spaces, trained
from .whole_runs import QUICK, run

COMMAND = Path(sys.executable).with_name("hvd-dqn")
OWN_ENVIRONMENT = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

gym.register("Mine-v0", entry_point=CartPoleEnv, max_episode_steps=20)
"""


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the directory of a short run whose environment is a file of the user's."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mine.py").write_text(OWN_ENVIRONMENT)
    length = ("--total-env-steps", "100", "--env", f"{folder}/mine.py:Mine-v0")
    ended = run(*QUICK, *length, "--evaluation-period", "50", "--runs-dir", folder, "--name", "run")
    assert ended.code == 0, ended.printed
    (directory,) = folder.glob("*/run")
    return directory


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(COMMAND), *map(str, arguments)], capture_output=True, text=True, check=False)


def _refused(capsys: pytest.CaptureFixture[str], *arguments: object, main: Any = export.main) -> str:
    assert main([str(part) for part in arguments]) == 2
    return capsys.readouterr().err


def test_the_command_writes_what_the_trained_agent_computes(trained_run: Path, tmp_path: Path) -> None:
    """And serve-example's folder, which holds the program."""
    done = _run("export", trained_run, "--format", "safetensors", "--checkpoint", "last")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = trained_run / "export" / "safetensors-000000000100"
    assert done.stdout.startswith(f"wrote {folder}: model.json, model.safetensors, numpy_network.py\nchecked: 512 ")
    from hvd_dqn.export.numpy_network import load

    agent = hvd_dqn.load(trained_run, "last")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    values = load(folder / "model.safetensors")(observations)
    np.testing.assert_allclose(values, agent.action_values(observations), rtol=1e-4, atol=1e-6)
    again = _run("export", trained_run, "--format", "safetensors", "--checkpoint", 100)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "exists already: add --force to replace it" in again.stderr

    done = _run("serve-example", trained_run, "--output", tmp_path / "served")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(path.name for path in (tmp_path / "served").iterdir()) == ["model.json", "model.onnx", "serve.py"]
    assert f"uvicorn --app-dir {tmp_path}/served serve:app --port 8000" in done.stdout


def test_the_command_that_a_finished_run_advises_works_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path has a space."""
    ended = run(*QUICK, "--total-env-steps", "40", "--runs-dir", tmp_path / "a b", "--name", "c d")
    (line,) = (line for line in ended.stdout.splitlines() if " export " in line)
    command = shlex.split(line)
    assert Path(command[0]).resolve() == COMMAND.resolve()
    assert os.access(command[0], os.X_OK)
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert end.value.code == 0
    assert list((tmp_path / "a b" / "CartPole-v1" / "c d" / "export").iterdir())


def test_a_half_precision_run_is_exported_in_float32(trained_run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained_run, tmp_path / "run")
    record = json.loads((copy / "config.json").read_text())
    record["config"] |= {"precision": "bfloat16", "learner": "tensorflow"}
    (copy / "config.json").write_text(json.dumps(record))
    done = _run("export", copy, "--format", "safetensors", "--checkpoint", "last", "--force")
    assert done.returncode == 0, done.stderr
    assert "checked: 512 observations, the same greedy actions, largest difference 0.0e+00" in done.stdout


def test_what_is_no_run_and_an_unknown_format_are_refused_at_once(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for main, verb, more in ((export.main, "export", ("--format", "keras")), (serve_example.main, "serve-example", ())):
        said = _refused(capsys, trained_run / "none", *more, main=main)
        assert said == f"hvd-dqn {verb}: {trained_run}/none: no such directory, or it cannot be read\n"
        said = _refused(capsys, trained_run / "checkpoints", *more, main=main)
        assert "not a run directory: no config.json in it; give the folder that contains config.json" in said
    said = _refused(capsys, trained_run, "--format", "torch")
    assert "invalid choice 'torch' for argument '--format'" in said
    assert "'saved-model'" in said


def test_several_ranks_are_refused(
    trained_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    assert "an export is made by one process, and 2 were started: leave the launcher out" in _refused(
        capsys, trained_run, "--format", "keras"
    )


def test_a_checkpoint_of_another_version_and_a_lost_environment_are_refused(trained_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(trained_run, tmp_path / "other")
    for manifest in other.glob("checkpoints/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"format": 4', '"format": 3'))
    done = _run("export", other, "--format", "keras")
    assert done.returncode == 2
    assert "its format 3 is older than this program's 4: use version 0.1.0" in done.stderr

    lost = shutil.copytree(trained_run, tmp_path / "lost")
    record = json.loads((lost / "config.json").read_text())
    record["config"]["env"] = f"{tmp_path}/gone.py:Mine-v0"
    (lost / "config.json").write_text(json.dumps(record))
    done = _run("export", lost, "--format", "keras")
    assert done.returncode == 2
    assert f"cannot import the module of --env '{tmp_path}/gone.py:Mine-v0'" in done.stderr
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def _serving(folder: Path, tmp_path: Path) -> Iterator[str]:
    """Starts the program on a free port, in a process that can import neither this package nor TensorFlow."""
    barred = tmp_path / "barred"
    barred.mkdir()
    for name in ("hvd_dqn", "tensorflow", "keras"):
        (barred / f"{name}.py").write_text("raise ImportError('barred')")
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(folder), "serve:app", "--port", "0"]
    server = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(barred)}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        lines = []
        for line in server.stderr:
            lines.append(line)
            if found := re.search(r"http://127.0.0.1:\d+", line):
                yield found[0]
                return
        pytest.fail("".join(lines))
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_the_program_serves_the_greedy_action_over_http(tmp_path: Path) -> None:
    agent = trained(spaces((2, 3), FLOAT, masked=True), dueling=True)
    folder = write_export(agent, "", "onnx", str(tmp_path / "served"), force=False, serve=True).folder
    observation, mask = [[0.5, -1.0, 2.0], [0.0, 3.0, -0.5]], [1, 0, 1]
    expected = agent.values(np.array([[*observation[0], *observation[1], *mask]], np.float32))[0]
    with _serving(folder, tmp_path) as url:
        assert httpx.get(url).json()["env"] == "CartPole-v1"
        answer = httpx.post(f"{url}/act", json={"observation": observation, "action_mask": mask})
        assert answer.status_code == 200
        assert answer.json()["action"] == expected.argmax()
        values = answer.json()["action_values"]
        assert values[1] is None
        np.testing.assert_allclose([values[0], values[2]], expected[[0, 2]], rtol=1e-4)
        for body, reason in [
            ({"observation": [1.0, 2.0], "action_mask": mask}, "observation: its shape is [2], and [2, 3] is needed"),
            ({"observation": [["a"] * 3] * 2, "action_mask": mask}, "observation: could not convert string to float"),
            ({"observation": [[1.0, 2.0], [1.0]], "action_mask": mask}, "observation: setting an array element"),
            ({"observation": [[1e99] * 3] * 2, "action_mask": mask}, "observation: a number in it is out of range"),
            ({"observation": observation, "action_mask": [1]}, "action_mask: its shape is [1], and [3] is needed"),
            ({"observation": observation, "action_mask": [1, 999, 1]}, "action_mask: Python integer 999 out of bounds"),
            ({"observation": observation}, "action_mask: "),
            ({"action_mask": mask}, "Field required"),
        ]:
            refused = httpx.post(f"{url}/act", json=body)
            assert (refused.status_code, reason in refused.text) == (422, True), refused.text


def test_a_category_out_of_range_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = trained(spaces((), INT, categories=9))
    folder = write_export(agent, "", "onnx", str(tmp_path / "served"), force=False, serve=True).folder
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "serve", raising=False)
    from fastapi.testclient import TestClient

    client = TestClient(importlib.import_module("serve").app)
    expected = agent.values(np.array([8], np.int32))[0]
    assert client.post("/act", json={"observation": 8}).json()["action"] == expected.argmax()
    assert client.post("/act", json={"observation": 9}).status_code == 422
    monkeypatch.delitem(sys.modules, "serve")
