"""Laws of --record-period's process: one at a time, of bounded length, no rank, and its failure is a line of text."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hvd_dqn.config import Config, replace
from hvd_dqn.errors import UserError
from hvd_dqn.training import recording
from hvd_dqn.training.recording import NullRecorder, ProcessRecorder, Recorded, make_recorder, own_environment

from .whole_runs import QUICK, run

ANSWER = """
import json, os, sys
request = json.loads(sys.stdin.buffer.readline())
parameters = sys.stdin.buffer.read()
found = {"path": f"{len(parameters)} bytes", "return": 2.5, "steps": request["env_steps"]}
sys.stdout.buffer.write(json.dumps(found).encode() + b"\\nGIF89a")
"""
FAIL = "import sys; sys.exit('the paint has run out')"
DIE = "import os; os.kill(os.getpid(), 9)"
HANG = """
import json, os, sys, time
folder = json.loads(sys.stdin.buffer.readline())["folder"]
os.makedirs(folder)
open(f"{folder}/.a.mp4.{os.getpid()}.tmp", "w").close()
time.sleep(1000)
"""


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Any:
    """Yields a recorder whose process runs a program of the test's."""
    (tmp_path / "program_of_the_test.py").write_text(request.param)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(recording, "PROGRAM", "program_of_the_test")
    own = ProcessRecorder(Config(), tmp_path / "videos")
    yield own
    own.close()


def _finish(recorder: ProcessRecorder, seconds: float = 60.0) -> list[Recorded]:
    deadline = time.monotonic() + seconds
    while not (found := recorder.finished()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("recorder", [ANSWER], indirect=True)
def test_the_process_gets_the_parameters_and_its_answer_is_a_film(recorder: ProcessRecorder) -> None:
    for env_steps in (7, 8):
        recorder.begin(np.arange(5, dtype=np.float32), env_steps)
        (film,) = _finish(recorder)
        assert film == Recorded(env_steps, "", "20 bytes", b"GIF89a", 2.5, env_steps)
        recorder.wait(lambda: False)
    assert recorder.finished() == []


@pytest.mark.parametrize(
    ("recorder", "words"), [(FAIL, "the paint has run out"), (DIE, "exit code -9")], indirect=["recorder"]
)
def test_after_a_failure_there_is_one_line_and_no_other_process(recorder: ProcessRecorder, words: str) -> None:
    recorder.begin(np.zeros(100_000, np.float32), 7)
    (film,) = _finish(recorder)
    assert words in film.problem
    recorder.begin(np.zeros(5, np.float32), 8)
    recorder.wait(lambda: False)
    assert recorder.finished() == []


@pytest.mark.parametrize("recorder", [HANG], indirect=True)
def test_a_process_that_hangs_is_the_only_one_and_ends_with_the_run(
    recorder: ProcessRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.begin(np.zeros(5, np.float32), 7)
    while recorder._process is None:
        time.sleep(0.01)
    process = recorder._process
    recorder.begin(np.zeros(5, np.float32), 8)
    assert recorder._process is process
    while not list(recorder._folder.glob(".*")):
        time.sleep(0.01)
    since = time.monotonic()
    monkeypatch.setattr(recording, "_SECONDS_TO_FINISH", 0.5)
    recorder.wait(lambda: False)
    assert time.monotonic() - since < 10.0
    assert recorder.finished() == [Recorded(7, "it was not finished when the run ended")]
    assert process.poll() == -9
    assert not Path(f"/proc/{process.pid}").exists()
    assert list(recorder._folder.iterdir()) == []


@pytest.mark.parametrize("recorder", [HANG], indirect=True)
def test_a_stopped_job_does_not_wait(recorder: ProcessRecorder) -> None:
    recorder.begin(np.zeros(5, np.float32), 7)
    since = time.monotonic()
    recorder.wait(lambda: True)
    recorder.close()
    assert time.monotonic() - since < 10.0


def test_the_process_is_no_rank_and_has_no_gpu() -> None:
    launchers = {"OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1", "SLURM_PROCID": "1", "HOROVOD_RANK": "1"}
    own = own_environment({**launchers, "HOME": "/h", "PYTHONPATH": "/p", "CUDA_VISIBLE_DEVICES": "0"})
    assert not launchers.keys() & own.keys()
    assert (own["HOME"], own["CUDA_VISIBLE_DEVICES"], own["OMP_NUM_THREADS"]) == ("/h", "", "1")
    assert own["PYTHONPATH"].endswith(f"{os.pathsep}/p")


def test_a_run_films_its_agent_and_shows_it_in_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real process; it may take its time on a busy machine."""
    monkeypatch.setattr(recording, "_SECONDS_TO_FINISH", 900.0)
    done = run(*QUICK, "--total-env-steps", "100", "--record-period", "60", "--runs-dir", tmp_path, "--name", "a")
    assert done.code == 0, done.printed
    directory = tmp_path / "CartPole-v1" / "a"
    (film,) = (directory / "videos").iterdir()
    assert film.name == f"{60:012d}.mp4"
    (steps,) = re.findall(rf"film of env step 60: {film}, return [\d.]+ in (\d+) steps", done.printed)
    assert imageio_ffmpeg.count_frames_and_secs(str(film))[0] == int(steps) + 1 + 75
    events = EventAccumulator(str(directory / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    (image,) = events.Images("evaluation/film")
    assert image.step == 60
    assert image.encoded_image_string.startswith(b"GIF89a")
    with Image.open(io.BytesIO(image.encoded_image_string)) as gif:
        assert gif.size == (image.width, image.height)


def test_a_run_without_a_period_has_the_null_object(tmp_path: Path) -> None:
    assert isinstance(make_recorder(Config(), tmp_path), NullRecorder)
    assert isinstance(make_recorder(replace(Config(), {"record_period": 5}), tmp_path), ProcessRecorder)


def test_without_the_extra_a_run_is_refused_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "imageio_ffmpeg" else find(name))
    with pytest.raises(UserError, match=r"--record-period needs the extra \[video\]"):
        make_recorder(replace(Config(), {"record_period": 5}), tmp_path)


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """A killed rank cannot end it."""
    request = {"config": {"env": "CartPole-v1"}, "folder": str(tmp_path), "env_steps": 5, "parent": os.getpid()}
    (tmp_path / "request").write_bytes(json.dumps(request).encode() + b"\n" + np.zeros(4_610, np.float32).tobytes())
    start = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-m', 'hvd_dqn.cli.record']\n"
        f"request = open({str(tmp_path / 'request')!r})\n"
        "print(subprocess.Popen(command, stdin=request, stdout=subprocess.DEVNULL).pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    deadline = time.monotonic() + 120.0
    while Path(f"/proc/{int(done.stdout)}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (tmp_path / f"{5:012d}.mp4").exists()
