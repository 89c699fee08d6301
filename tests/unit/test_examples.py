"""The programs in examples/ run as their documents say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_search_stops_bad_trials_and_continues_its_study(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "tune.py"), "--env-steps", "2000", "--trials", "6"]
    for finished in ("best of ", "best of "):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        assert finished in done.stdout
    assert "pruned" in done.stderr
    assert len(list((tmp_path / "runs-tune" / "CartPole-v1").iterdir())) == 12
