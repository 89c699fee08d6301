"""What a job prints: its commands work as they are, and losing the output does not end it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from forms import only_in_full
from launching import ROOT, command, environment_of_ranks, newest_checkpoint, read_metrics

pytestmark = pytest.mark.parallel

SHORT = (
    *("--total-env-steps", "2000", "--learning-starts", "200", "--train-period", "8", "--log-period", "100"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "2", "--progress", "plain"),
)
UNACTIVATED = environment_of_ranks() | {"PATH": "/usr/local/bin:/usr/bin:/bin", "KERAS_BACKEND": "jax"}
"""With a setting of Keras that is another project's."""


@pytest.mark.parametrize(
    ("how", "ranks"),
    [("python", 1), *(pytest.param(how, 2, marks=pytest.mark.slow) for how in ("mpirun", "horovodrun --gloo"))],
)
def test_the_printed_commands_run_without_an_activated_environment(how: str, ranks: int, tmp_path: Path) -> None:
    """The path of the run has a space. The commands play, film, report, serve TensorBoard, and resume the run."""
    start = command(how, ranks, ROOT / "train.py", *SHORT, "--name", "a b")
    done = subprocess.run(start, cwd=tmp_path, env=UNACTIVATED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = re.sub(r"^\[\d+\]<stdout>:", "", done.stdout, flags=re.MULTILINE).rstrip().splitlines()
    following = [line.strip() for line in printed[printed.index("Next:") + 1 :]]
    play, film, page, board, resume = (
        next(line for line in following if word in line)
        for word in (" evaluate ", " watch ", " report ", "tensorboard ", " --resume ")
    )
    played = subprocess.run(
        ["bash", "-c", f"{play} --episodes 2"],
        cwd=tmp_path,
        env=UNACTIVATED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 greedy episodes of CartPole-v1" in played.stdout, played.stderr
    if ranks == 1:
        filmed = ["bash", "-c", f"{film} --max-steps 5"]
        subprocess.run(filmed, cwd=tmp_path, env=UNACTIVATED, capture_output=True, check=True)
        assert list((tmp_path / "runs" / "CartPole-v1" / "a b" / "videos").glob("*-best.mp4"))
    subprocess.run(["bash", "-c", page], cwd=tmp_path, env=UNACTIVATED, check=True)
    assert (tmp_path / "runs" / "CartPole-v1" / "a b" / "report.html").is_file()
    environ = UNACTIVATED | ({"OMPI_MCA_rmaps_base_oversubscribe": "1"} if ranks > 1 else {})
    again = subprocess.run(
        ["bash", "-c", resume], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert read_metrics(tmp_path / "runs" / "CartPole-v1" / "a b", "training")[-1]["env_steps"] >= 4000
    if ranks == 1:
        _check_that_tensorboard_serves(board, tmp_path)


def _check_that_tensorboard_serves(line: str, folder: Path) -> None:
    with (folder / "log").open("w") as log:
        board = subprocess.Popen(
            ["bash", "-c", f"exec {line} --port 0 --host 127.0.0.1"],
            cwd=folder,
            env=UNACTIVATED,
            stderr=log,
            stdout=log,
        )
    try:
        while not (found := re.search(r"http://\S+", (folder / "log").read_text())):
            assert board.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        with urllib.request.urlopen(found[0], timeout=30.0) as page:
            assert b"<title>TensorBoard</title>" in page.read()
    finally:
        board.send_signal(signal.SIGTERM)
        board.wait(10.0)


def test_launch_local_prints_the_job_alone_into_a_file(tmp_path: Path) -> None:
    """No prefix of a launcher, no message of TensorFlow from a rank, no escape sequence."""
    options = (*SHORT, "--stall-timeout-seconds", "300", "--runs-dir", str(tmp_path), "--name", "run")
    with (tmp_path / "log").open("w") as log:
        start = [str(ROOT / "launch" / "local.sh"), "-np", "2", "--", *options]
        done = subprocess.run(start, env=UNACTIVATED, stdout=log, stderr=subprocess.STDOUT, check=False)
    text = (tmp_path / "log").read_text()
    assert done.returncode == 0, text
    assert "<std" not in text
    assert "\033" not in text
    _, begun, job = text.partition("hvd_dqn on CartPole-v1")
    assert begun
    assert not re.findall("cuda|absl|tensorflow/core", job)


@pytest.mark.faults
@pytest.mark.parametrize(
    "where", [">/dev/full", *(pytest.param(to, marks=only_in_full) for to in ("| head -n 3", ">&-", "2>&-"))]
)
def test_a_job_whose_output_is_lost_trains_to_its_end(where: str, tmp_path: Path) -> None:
    start = [sys.executable, ROOT / "train.py", *SHORT, "--name", "run", "--runs-dir", tmp_path]
    line = f'"$@" {where}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line, "bash", *map(str, start)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run_directory = tmp_path / "CartPole-v1" / "run"
    assert len(read_metrics(run_directory, "final_evaluation")) == 1
    assert int(newest_checkpoint(run_directory).name) == 2000
