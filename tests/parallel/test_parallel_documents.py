"""The commands and programs of the pages run as they are printed, in the order of each page, on shorter runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT, TRAIN

pytestmark = [pytest.mark.parallel, pytest.mark.slow]

PAGES = (
    *("README.md", "docs/tutorial.md", "docs/how-to/train.md", "docs/how-to/resume.md", "docs/how-to/algorithms.md"),
    *("docs/how-to/own-environment.md", "docs/how-to/trained-agent.md", "docs/how-to/compare-runs.md"),
    *("docs/algorithms/dqn.md", "docs/algorithms/munchausen.md", "docs/algorithms/c51.md"),
    *("docs/algorithms/quantiles.md", "docs/algorithms/parts.md"),
)
SHORTER = (
    *("--total-env-steps", "1500", "--learning-starts", "500", "--evaluation-period", "500", "--log-period", "500"),
    *("--evaluation-episodes", "2", "--final-evaluation-episodes", "2", "--train-period", "16"),
)
UNFINISHED = ("--total-env-steps", "1000")
"""Of a run that a page takes for granted: it can be resumed."""
ELSEWHERE = {
    r"source |make |pip |docker ": "unit/test_entry_points.py, and the first steps of continuous integration",
    r"launch/": "unit/test_launch_scripts.py and launch/",
    r"tensorboard ": "parallel/test_parallel_output.py",
    r"tail -f |chromium ": "a program that does not end, and one that makes a picture",
    r"uvicorn |curl |.*\| curl ": "unit/test_export_command.py",
    r".* --human": "unit/test_watch.py, without a screen",
    r".* --seeds |sbatch ": "unit/test_seeds.py, unit/test_examples.py: minutes each",
    r".*(s3|gs|az)://": "unit/test_object_store.py",
    r".*--preset atari|.*ALE[-/]": "unit/test_atari.py",
}
"""Commands that are not run here, and what runs them."""
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _prepare(folder: Path, text: str) -> None:
    """Writes the files that a page shows, and a train.py that is shorter where a page gives no length."""
    program = f"import runpy, sys\nsys.argv = [{str(TRAIN)!r}, *{SHORTER!r}, *sys.argv[1:]]\n"
    (folder / "train.py").write_text(f"{program}runpy.run_path({str(TRAIN)!r}, run_name='__main__')\n")
    for language, block in _BLOCK.findall(text):
        name = re.match(r"# (\w+\.(?:py|toml))", block)
        if name is not None and language in ("python", "toml"):
            (folder / name[1]).write_text(block)


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_commands_run(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    _prepare(tmp_path, text)
    crowded = {"OMPI_MCA_rmaps_base_oversubscribe": "1"}  # four ranks on fewer cores
    environ = {
        **os.environ,
        **crowded,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
    }
    for name in sorted(set(re.findall(r"runs/(CartPole-v1|LunarLander-v3)/([\w-]+)", text))):
        preset = {"CartPole-v1": "cartpole", "LunarLander-v3": "lunarlander"}[name[0]]
        if f"--preset {preset} --name {name[1]}" not in text:
            _run([sys.executable, "train.py", "--preset", preset, "--name", name[1], *UNFINISHED], tmp_path, environ)
    if "hvd-dqn compare runs/CartPole-v1/*" in text:
        _run([sys.executable, "train.py", "--double", "--name", "second"], tmp_path, environ)
    for language, block in _BLOCK.findall(text):
        if language == "python" and "import hvd_dqn\n" in block:
            program = block.replace("total_env_steps=20_000", "total_env_steps=1_500, learning_starts=500")
            _run([sys.executable, "-c", program], tmp_path, environ)
        for line in re.sub(r"\\\n", " ", block).splitlines() if language == "sh" else ():
            if line.strip() and not any(re.match(pattern, line) for pattern in ELSEWHERE):
                _run(["bash", "-c", line], tmp_path, environ)


def _run(command: list[str], folder: Path, environ: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    finished = "--resume" in command[-1] and "env steps already: raise --total-env-steps" in done.stderr
    assert done.returncode == 0 or finished, f"{command[-1]}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
