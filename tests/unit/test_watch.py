"""Laws of hvd-dqn watch: the film shows the episodes that are evaluated, and what cannot be filmed is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio_ffmpeg  # type: ignore[import-untyped]
import pytest

from hvd_dqn.cli.watch import read
from hvd_dqn.errors import UserError

from .whole_runs import QUICK, run

COMMAND = Path(sys.executable).with_name("hvd-dqn")


def _train(folder: Path, *flags: str | Path) -> Path:
    done = run(*QUICK, "--total-env-steps", "100", "--runs-dir", folder, "--name", "run", *flags)
    assert done.code == 0, done.printed
    return next(folder.rglob("config.json")).parent


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the directory of a run."""
    return _train(tmp_path_factory.mktemp("runs"))


def _command(
    *arguments: object, verb: str = "watch", code: int = 0, environ: dict[str, str] | None = None
) -> tuple[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [str(COMMAND), verb, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own | (environ or {}))
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_the_film_shows_the_episodes_that_are_evaluated(cartpole: Path, tmp_path: Path) -> None:
    """Films of both forms have the same returns as `hvd-dqn evaluate`, and a picture for each step."""
    evaluated = json.loads(_command(cartpole, "--episodes", 2, "--json", verb="evaluate")[0])["returns"]
    printed, _ = _command(cartpole, "--episodes", 2)
    (path,) = (cartpole / "videos").iterdir()
    assert path.name == f"{100:012d}-best.mp4"
    assert printed.startswith(f"{path}: ")
    found = [float(number) for number in re.findall(r"return ([\d.]+) in", printed)]
    assert found == evaluated
    steps = [int(number) for number in re.findall(r"in (\d+) steps", printed)]
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["fps"] == 50
    assert sum(1 for _ in reader) == sum(steps) + 2 * (1 + round(1.5 * 50))
    cut, _ = _command(
        cartpole, "--format", "gif", "--max-steps", 5, "--epsilon", 1, "--output", tmp_path / "a.gif", "--fps", 5
    )
    assert (tmp_path / "a.gif").read_bytes().startswith(b"GIF89a")
    assert "1 episode with epsilon 1 of CartPole-v1" in cut
    assert "1 cut off at 5 steps (--max-steps)" in cut


def test_the_help_loads_nothing_heavy() -> None:
    code = "import sys, hvd_dqn.cli.watch; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in answer.stdout.split()}
    assert not loaded & {"numpy", "tensorflow", "PIL", "imageio_ffmpeg", "pygame", "gymnasium"}


def test_without_ffmpeg_the_remedy_is_named_and_a_gif_can_be_made(cartpole: Path, tmp_path: Path) -> None:
    environ = {"PATH": "", "IMAGEIO_FFMPEG_EXE": str(tmp_path / "gone")}
    _, errors = _command(cartpole, code=2, environ=environ)
    assert errors.startswith(f"hvd-dqn watch: no ffmpeg was found (IMAGEIO_FFMPEG_EXE is {tmp_path}/gone)")
    assert "--format gif" in errors
    assert errors.count("\n") == 1
    gif = tmp_path / "a.gif"
    _command(cartpole, "--format", "gif", "--max-steps", 3, "--output", gif, environ=environ)
    assert gif.stat().st_size > 1000


def test_without_a_display_a_window_is_refused(cartpole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"--human needs a display.*leave --human out.*ssh -X"):
        read([str(cartpole), "--human"])


def test_without_the_extra_the_command_that_installs_it_is_named(
    cartpole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "PIL" else find(name))
    with pytest.raises(UserError, match=r"needs the extra \[video\]: pip install 'hvd-dqn\[video\]' \(no PIL here\)"):
        read([str(cartpole)])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--episodes", "0"), "--episodes is 0: give at least 1"),
        (("--epsilon", "2"), "--epsilon is 2.0: give a number from 0 to 1"),
        (("--fps", "0.5"), "--fps is 0.5: give a number from 1 to 1000"),
        (("--max-steps", "-1"), "--max-steps is -1: give 0 or more"),
        (("--gif-megabytes", "0"), "--gif-megabytes is 0.0: give a positive number"),
        (("--format", "avi"), "avi"),
    ],
)
def test_a_value_out_of_range_is_refused(cartpole: Path, flags: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read([str(cartpole), *flags])


def test_a_module_that_is_gone_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "soon_gone.py"
    module.write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv\nclass Theirs(CartPoleEnv):\n    metadata = {}\n"
    )
    directory = _train(tmp_path / "runs", "--env", f"{module}:Theirs", "--vectorization", "sync")
    _, errors = _command(directory, code=2)
    assert "draws no pictures" in errors
    assert "metadata['render_modes']" in errors
    module.unlink()
    _, errors = _command(directory, code=2)
    assert f"cannot import the module of --env '{module}:Theirs'" in errors
    assert "install it" in errors


def test_a_place_that_cannot_be_written_is_refused(cartpole: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, errors = _command(cartpole, "--max-steps", 3, "--output", tmp_path / "file" / "a.mp4", code=2)
    assert "cannot be written" in errors
    assert "--output" in errors


def test_several_processes_are_refused(cartpole: Path) -> None:
    environ = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    _, errors = _command(cartpole, code=2, environ=environ)
    assert "a film is made by one process, and 2 were started: leave the launcher out" in errors
