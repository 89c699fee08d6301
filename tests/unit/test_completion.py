"""Laws of hvd-dqn completion: a real bash completes verbs, flags, values and run directories."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hvd_dqn.cli.completion import script
from hvd_dqn.cli.entry import VERBS
from hvd_dqn.config import field_names
from hvd_dqn.presets import PRESETS

COMMAND = Path(sys.executable).with_name("hvd-dqn")
COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
$(complete -p hvd-dqn | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "script"
    file.write_text(script())
    return file


def _completed(printed: Path, folder: Path, *words: str) -> set[str]:
    start = ["bash", "--norc", "-c", COMPLETE, "bash", str(printed), "hvd-dqn", *words]
    done = subprocess.run(start, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_verbs_are_completed(printed: Path, tmp_path: Path) -> None:
    assert _completed(printed, tmp_path, "") == set(VERBS)
    assert _completed(printed, tmp_path, "eval") == {"evaluate"}


def test_every_flag_of_training_is_completed(printed: Path, tmp_path: Path) -> None:
    flags = _completed(printed, tmp_path, "train", "--")
    assert {"--" + name.replace("_", "-") for name in field_names()} | {"--preset", "--no-double", "--help"} <= flags
    assert _completed(printed, tmp_path, "train", "--epsilon-sch") == {"--epsilon-schedule"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_flags(verb: str, printed: Path, tmp_path: Path) -> None:
    assert "--help" in _completed(printed, tmp_path, verb, "--h")


def test_values_are_completed(printed: Path, tmp_path: Path) -> None:
    assert _completed(printed, tmp_path, "train", "--preset", "") == set(PRESETS)
    assert _completed(printed, tmp_path, "train", "--seed", "1", "--optimizer", "a") == {"adam"}


def test_run_directories_and_files_are_completed(printed: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "CartPole-v1" / "first"
    run.mkdir(parents=True)
    (run / "config.json").touch()
    (tmp_path / "own.toml").touch()
    assert _completed(printed, tmp_path, "evaluate", "") == {"runs/CartPole-v1/first", "runs", "own.toml"}
    assert _completed(printed, tmp_path, "train", "--config", "o") == {"own.toml"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_takes_the_script() -> None:
    text = subprocess.run([COMMAND, "completion", "zsh"], capture_output=True, text=True, check=True).stdout
    line = f"autoload -Uz compinit && compinit -u\n{text}\nprint $_comps[hvd-dqn]"
    done = subprocess.run(["zsh", "-f", "-c", line], capture_output=True, text=True, check=True)
    assert "_hvd_dqn" in done.stdout
