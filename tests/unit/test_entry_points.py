"""Laws of the ways into the program: python train.py, the command hvd-dqn, an installed wheel, the wrong Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from hvd_dqn.cli.entry import VERBS

from . import whole_runs
from .whole_runs import QUICK

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("hvd-dqn")


def run(
    *command: str | Path, cwd: Path = ROOT, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command and returns how it ended."""
    own = os.environ | (environ or {})
    return subprocess.run(list(map(str, command)), cwd=cwd, env=own, capture_output=True, text=True, check=False)


def test_a_python_without_the_packages_names_the_one_that_has_them() -> None:
    other = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    done = run(other, "-S", ROOT / "train.py")
    assert done.returncode == 2
    assert done.stderr.startswith(f"train.py: this Python ({other}) has no tensorflow: ")
    assert done.stderr.count("\n") == 1
    assert f"source {ROOT}/.venv/bin/activate (or run {ROOT}/.venv/bin/python)" in done.stderr


@pytest.mark.parametrize("interpreter", [".venv/bin/python", sys.executable])
def test_an_environment_that_is_incomplete_or_missing_is_to_be_set_up(interpreter: str, tmp_path: Path) -> None:
    """As after a `make setup` that was interrupted; the program must not start itself again, either."""
    for name in ("train.py", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "hvd_dqn", tmp_path / "hvd_dqn")
    options: tuple[str, ...] = ("-S",)
    if interpreter.startswith(".venv"):
        venv.create(tmp_path / ".venv", symlinks=True)
        options = ()  # it has no packages to leave out
    done = run(tmp_path / interpreter, *options, tmp_path / "train.py", cwd=tmp_path)
    assert done.returncode == 2
    assert f"complete the project's environment: make -C {tmp_path} setup" in done.stderr


@pytest.mark.parametrize("missing", ["horovod", "mpi4py", "tensorboard"])
def test_a_package_that_is_missing_alone_is_named_too(missing: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{missing!r}] = None")
    done = run(sys.executable, ROOT / "train.py", "--help", environ={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert f"has no {missing}: complete the project's environment: make -C {ROOT} setup" in done.stderr


def test_the_command_is_the_same_program_from_any_folder(tmp_path: Path) -> None:
    program = (sys.executable, ROOT / "train.py")
    assert run(COMMAND, "train", "--help", cwd=tmp_path).stdout == run(*program, "--help").stdout != ""
    for arguments in (("--presett", "maze"), ("--gamma", "2")):
        by_command, by_file = run(COMMAND, "train", *arguments, cwd=tmp_path), run(*program, *arguments)
        assert by_command.returncode == by_file.returncode == 2
        assert by_command.stderr == by_file.stderr != ""


def test_the_command_alone_shows_its_verbs_and_names_the_nearest_one() -> None:
    usage = run(COMMAND)
    assert (usage.returncode, usage.stderr) == (0, "")
    assert run(COMMAND, "--help").stdout == usage.stdout
    assert all(f"  {verb} " in usage.stdout for verb in ("train", "evaluate"))
    wrong = run(COMMAND, "evaluat", "runs")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == f"hvd-dqn: no verb 'evaluat' (did you mean 'evaluate'?)\n{usage.stdout}"


def _ended_with_a_closed_pipe(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command whose output has no reader any more, as after `| head -n 1`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        return subprocess.run(list(map(str, command)), stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write_end)


@pytest.mark.parametrize("verb", [*VERBS, ""])
def test_help_into_a_closed_pipe_ends_quietly(verb: str) -> None:
    done = _ended_with_a_closed_pipe(COMMAND, *filter(None, [verb]), "--help")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples_at_once(verb: str) -> None:
    """Neither NumPy nor TensorFlow nor matplotlib is loaded for --help."""
    done = run(sys.executable, "-X", "importtime", COMMAND, verb, "--help")
    assert done.returncode == 0
    assert f"hvd-dqn {verb} " in done.stdout or "python train.py" in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "tyro" in loaded
    assert not loaded & {"numpy", "tensorflow", "keras", "matplotlib", "horovod", "mpi4py"}


@pytest.mark.slow
def test_the_command_of_an_installed_wheel_trains(tmp_path: Path) -> None:
    """The wheel is built, and imported from a folder in which no checkout is near."""
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "wheels")
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {"hvd_dqn/report/page.css", "hvd_dqn/report/page.js"} <= set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert not (tmp_path / "site" / "train.py").exists()
    assert not list((tmp_path / "site").glob("*.pth"))
    (entry,) = [
        line
        for file in (tmp_path / "site").glob("*/entry_points.txt")
        for line in file.read_text().split("\n")
        if line.startswith("hvd-dqn = ")
    ]
    module, function = entry.removeprefix("hvd-dqn = ").split(":")
    start = (sys.executable, "-c", f"from {module} import {function}; {function}()", "train")
    short = (
        "--total-env-steps",
        "400",
        "--evaluation-period",
        "0",
        "--final-evaluation-episodes",
        "1",
        "--name",
        "run",
    )
    done = run(*start, *short, cwd=tmp_path, environ={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stderr
    recorded = (tmp_path / "runs" / "CartPole-v1" / "run" / "config.json").read_text()
    assert f'"{tmp_path}/site/hvd_dqn/train.py"' in recorded


MOVER = """
import os

from gymnasium.envs.classic_control import CartPoleEnv


class Mover(CartPoleEnv):
    def __init__(self, render_mode=None):
        os.chdir("/tmp")
        super().__init__()

    def reset(self, **arguments):
        os.chdir("/")
        return super().reset(**arguments)
"""


def test_an_environment_that_changes_the_folder_leaves_relative_paths_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the program, the environment's file and the runs, in a first run and in a resumed one."""
    (tmp_path / "mover.py").write_text(MOVER)
    program = [os.path.relpath(path, tmp_path) for path in (sys.executable, ROOT / "train.py")]
    ended = run(*program, *QUICK, *("--env", "mover.py:Mover", "--total-env-steps", "60", "--name", "a"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (directory,) = (tmp_path / "runs").glob("*/a")
    assert f"{ROOT / 'train.py'} --resume {directory} --total-env-steps 120" in ended.stdout
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    resumed = whole_runs.run("--resume", directory.relative_to(tmp_path), "--total-env-steps", "120")
    assert resumed.code == 0, resumed.printed
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"mover.py", "runs"}
    assert (directory / "checkpoints" / f"{120:012d}" / "manifest.json").exists()
