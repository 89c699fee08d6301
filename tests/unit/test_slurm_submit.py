"""Laws of launch/slurm/submit that need no Slurm: what it refuses, and the job script that it writes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hvd_dqn.cli.slurm_submit import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--nods", "2"), "--nodes"),
        (("--nodes", "0"), "--nodes is 0: it must be at least 1"),
        (("--ranks-per-node", "x"), "--ranks-per-node"),
        (("--time", "soon"), "--time soon: give minutes, H:M:S or D-H:M:S"),
        (("--time", "1"), "60 s that the job keeps for saving: allow more time"),
        (("--launcher", "qsub"), "srun"),
        (("--container", "missing.sif"), "there is no such image"),
        (("--seeds", "1..4"), "such as 0-4"),
        (("--min-ranks", "2"), "add --launcher elastic"),
        (("--launcher", "elastic", "--min-ranks", "2"), "give 1 to 1, the job's ranks"),
        (("--seeds", "0-4", "--", "--seed", "3"), "leave --seed out"),
        (("--memory", "lots"), "such as 16G"),
        (("--environment", "A=b"), "give a variable's name alone"),
        (("--environment", "NOT_SET_HERE"), "no such environment variable here"),
        (("--nodes", "2", "--", "--presett", "maze"), "--preset"),
        (("--nodes", "2", "--", "--gamma", "2"), "--gamma"),
        (("--nodes", "2", "--", "--num-envs", "1"), "give at least 2, or start at most 1 ranks"),
        (("--nodes", "2", "--launcher", "srun", "--", "--strategy", "ps-async"), "give --launcher pmix or mpirun"),
        (("--nodes", "2", "--gpus", "--", "--strategy", "ps-sync"), "give --launcher pmix or mpirun"),
        (("--", "--strategy", "ps-async"), "needs at least 2 ranks, and the job has 1"),
        (("--", "--config", "missing.toml"), "cannot read --config missing.toml"),
        (("--", "--resume", "runs/x"), "a job resumes the run of its --name by itself"),
        (("--", "--time-limit", "5"), "with --time before the --"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = arguments if "--" in arguments else (*arguments, "--")
    assert main([str(ROOT), *own, "--runs-dir", str(tmp_path / "runs"), "--name", "x"]) == 2
    told = capsys.readouterr().err
    assert re.search(words, " ".join(told.replace("│", " ").split())), told
    assert not (tmp_path / "runs").exists()


def test_without_slurm_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(ROOT), "--", "--runs-dir", str(tmp_path / "runs"), "--name", "x"]) == 2
    assert "sbatch is not in PATH" in capsys.readouterr().err


def test_a_dry_run_prints_the_script_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--nodes", "2", "--account", "abc", "--partition", "low", "--gpus", "--slurm=--qos=long", "--dry-run")
    assert main([str(ROOT), *options, "--", "--runs-dir", str(tmp_path / "a b"), "--name", "x"]) == 0
    script = capsys.readouterr().out
    for line in ("--nodes=2", "--account=abc", "--partition=low", "--gpus-per-node=1", "--qos=long", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert script.splitlines()[-1].startswith(f"exec {ROOT}/launch/slurm/train.sbatch --launcher auto -- ")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert not (tmp_path / "a b").exists()
