"""Films during training: a process on rank 0's host plays one episode with a copy of the parameters.

Nothing here is a collective, and nothing changes training: the process has its own environment, random streams and
interpreter, and the lowest priority. What it fails at costs one warning.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from hvd_dqn.config import Config, flatten
from hvd_dqn.video.writer import require_video

PROGRAM = "hvd_dqn.cli.record"
"""The module that the process runs."""
MOST_STEPS, MOST_SECONDS = 3_000, 900
"""Of an episode, and of the process."""
GIF_BYTES, GIF_SECONDS = 1_000_000, 20.0
"""Of the picture for TensorBoard."""
_SECONDS_TO_FINISH = 60.0
"""How long a finished run waits for the last film."""
_OF_THE_LAUNCHER = ("HOROVOD_", "OMPI_", "PMIX_", "PMI_", "PRTE_", "SLURM_", "HYDRA_")
"""Variables that would make a process look like a rank."""
_MOST_CHARACTERS = 600


class Recorded(NamedTuple):
    """A film that is finished, or why there is none."""

    env_steps: int
    problem: str = ""
    path: str = ""
    gif: bytes = b""
    episode_return: float = 0.0
    steps: int = 0


class Recorder(Protocol):
    """Films an agent while it is trained."""

    def begin(self, parameters: Any, env_steps: int) -> None:
        """Films one episode under parameters [P], unless the film before is not finished."""

    def finished(self) -> list[Recorded]:
        """Returns what was finished since the last call; does not wait."""

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Waits a bounded time for the film in progress; less once `stopped` returns True."""

    def close(self) -> None:
        """Ends the process."""


class NullRecorder:
    """The null object of all ranks except 0, and of runs that are not filmed."""

    def begin(self, parameters: Any, env_steps: int) -> None:
        """Does nothing."""

    def finished(self) -> list[Recorded]:
        """Returns an empty list."""
        return []

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class ProcessRecorder:
    """Films in a process that a thread starts, feeds and waits for."""

    def __init__(self, config: Config, folder: Path) -> None:
        """Starts nothing yet.

        Args:
          config: of the run.
          folder: of the films.

        Raises:
          UserError: if the extra of films is not installed.
        """
        require_video("--record-period")
        self._config, self._folder = flatten(config), folder
        self._working_folder = os.getcwd()  # an environment may change it
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = self._failed = False
        self._env_steps = 0
        self._results: queue.SimpleQueue[Recorded] = queue.SimpleQueue()

    def begin(self, parameters: Any, env_steps: int) -> None:
        """Copies the parameters and starts; does nothing after a failure."""
        if self._failed or self._busy:
            return
        self._env_steps = env_steps
        request = {
            "config": self._config,
            "folder": str(self._folder),
            "env_steps": env_steps,
            "parent": os.getpid(),  # the process ends with this one
        }
        content = json.dumps(request).encode() + b"\n" + np.asarray(parameters, np.float32).tobytes()
        self._thread = threading.Thread(target=self._record, args=(content, env_steps), name="recording", daemon=True)
        self._thread.start()

    def finished(self) -> list[Recorded]:
        """Empties the queue."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._results.get_nowait())
        return found

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Waits in short slices; a film that is not finished then is a failed one."""
        deadline = time.monotonic() + _SECONDS_TO_FINISH
        while self._busy and time.monotonic() < deadline and not stopped():
            time.sleep(0.1)
        if self._busy:
            self.close()
            self._results.put(Recorded(self._env_steps, "it was not finished when the run ended"))

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Kills the process, if it runs; its thread ends with it."""
        self._closed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
        if self._thread is not None:
            self._thread.join(1.0)

    def _record(self, content: bytes, env_steps: int) -> None:
        """Runs in a thread; whatever happens becomes a result."""
        try:
            result = self._run(content, env_steps)
        except Exception as error:
            result = Recorded(env_steps, f"{type(error).__name__}: {error}")
        if self._closed:
            return
        self._failed = bool(result.problem)
        self._results.put(result)

    def _run(self, content: bytes, env_steps: int) -> Recorded:
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._working_folder,
            env=own_environment(os.environ),
            start_new_session=True,  # signals to the job's group are for the job
        )
        if self._closed:
            process.kill()
        try:
            printed, errors = process.communicate(content, timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Recorded(env_steps, f"it took more than {MOST_SECONDS} s")
        finally:
            self._remove_unfinished(process.pid)
        if process.returncode:
            words = errors.decode(errors="replace").strip()[-_MOST_CHARACTERS:]
            return Recorded(env_steps, words or f"its process ended with exit code {process.returncode}")
        line, _, gif = printed.partition(b"\n")
        found = json.loads(line)
        return Recorded(env_steps, "", found["path"], gif, found["return"], found["steps"])

    def _remove_unfinished(self, pid: int) -> None:
        """Removes what a process that was killed has left of its film."""
        with contextlib.suppress(OSError):
            for left in self._folder.glob(f".*.{pid}.tmp"):
                left.unlink(missing_ok=True)


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of the process: no launcher's, no GPU, one thread, and this package found first."""
    inherited = {name: value for name, value in environ.items() if not name.startswith(_OF_THE_LAUNCHER)}
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, inherited.get("PYTHONPATH", "").split(os.pathsep))]
    pools = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return inherited | pools | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(paths)}


def make_recorder(config: Config, folder: Path) -> Recorder:
    """Returns what films a run, on rank 0.

    Raises:
      UserError: if the extra of films is not installed.
    """
    return ProcessRecorder(config, folder) if config.evaluation.record_period else NullRecorder()


def no_more_films(recorded: Recorded) -> str:
    """Returns the warning of a film that failed."""
    return (
        f"the recording at env step {recorded.env_steps:,} failed, and no more are made: {recorded.problem}; "
        "training does not depend on it"
    )
