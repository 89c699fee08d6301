"""The law that hvd_dqn/native can be deleted: the general learner trains, and all other unit tests pass."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "runs", "build", "bench", "native", "test_native_*")

_OF_THE_CHECKOUT = ("test_without_native", "test_documents", "test_entry_points", "test_launch_scripts")
"""Tests that look at git's list of files, or at the environment in the project's folder; a copy has neither."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Returns a copy of the project without the folder."""
    project = tmp_path / "project"
    shutil.copytree(ROOT, project, ignore=_LEFT_OUT)
    assert not (project / "hvd_dqn" / "native").exists()
    return project


def _pytest(project: Path, *arguments: str) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


def test_a_copy_without_native_trains_and_keeps_the_laws_of_its_learner(copy: Path) -> None:
    where = "import hvd_dqn, importlib.util; print(hvd_dqn.__file__, importlib.util.find_spec('hvd_dqn.native'))"
    seen = subprocess.run([sys.executable, "-c", where], cwd=copy, capture_output=True, text=True, check=True).stdout
    assert seen.split() == [str(copy / "hvd_dqn" / "__init__.py"), "None"]
    lengths = ("--total-env-steps", "600", "--learning-starts", "200", "--log-period", "200")
    words = [sys.executable, "train.py", "--preset", "cartpole", "--name", "run", *lengths]
    result = subprocess.run(words, cwd=copy, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    run = next(copy.rglob("config.json")).parent
    assert json.loads((run / "config.json").read_text())["config"]["learner"] == "tensorflow"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(record.get("learner_steps", 0) for record in records) > 0
    _pytest(copy, "tests/unit/test_learner.py", "-k", "tensorflow and (eager_keras or nan_in_a_batch or state_goes)")


@pytest.mark.slow
def test_a_copy_without_native_passes_all_other_unit_tests(copy: Path) -> None:
    _pytest(copy, "tests/unit", "-n", "2", *(f"--ignore=tests/unit/{name}.py" for name in _OF_THE_CHECKOUT))
