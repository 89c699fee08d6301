"""Starts real jobs under real launchers and leaves nobody behind.

Every process of a launch inherits a mark in its environment, by which it is found in /proc wherever the launcher
has put it (process groups and sessions differ between launchers): only what was started here is ever ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "programs"
TRAIN = ROOT / "train.py"
LAUNCHERS = ("mpirun", "horovodrun --mpi", "horovodrun --gloo")
GENERAL = ("--learner", "tensorflow")
"""The learner that a law is tested on unless it names another."""
LEARNERS: dict[str, tuple[str, ...]] = {"tensorflow": GENERAL, "native": ("--learner", "native")}
"""The options that choose each learner."""

MARK = "HVD_DQN_TEST_LAUNCH"
"""The environment variable by which all processes of a launch are found."""
_RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK")
_FOREIGN = ("HOROVOD_", "OMPI_", "PMIX_", "PMI_", "PRTE_", "SLURM_")
_GLOO_PREFIX = re.compile(r"^\[\d+\]<std(?:out|err)>:", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    code: int
    output: str  # standard output and error of launcher and ranks, horovodrun's line prefixes removed
    seconds: float


class Launch:
    """A job that runs under a launcher."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        """Starts the command in a session of its own."""
        self._mark = uuid.uuid4().hex
        _count_launch()
        self._log = tempfile.NamedTemporaryFile(mode="w+b", prefix="launch-", suffix=".log")  # noqa: SIM115
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environ, MARK: self._mark},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        """Returns what launcher and ranks have printed so far."""
        return _GLOO_PREFIX.sub("", Path(self._log.name).read_text(errors="replace").replace("\r\n", "\n"))

    def wait_for(self, text: str, seconds: float = 600.0) -> None:
        """Returns as soon as the text has been printed; fails if the job ends or the time is over before."""
        self.wait_until(lambda: text in self.output, seconds, f"it printed {text!r}")

    def wait_until(self, holds: Callable[[], bool], seconds: float = 600.0, what: str = "it should") -> None:
        """Returns as soon as something holds; fails if the job ends or the time is over before."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, f"the job ended before {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"{seconds:g} s went by before {what}:\n{self.output}"
            time.sleep(0.05)

    def rank_pid(self, rank: int) -> int:
        """Returns the process id of a rank's interpreter."""
        found = [pid for pid, own in self.python_processes().items() if own == rank]
        assert len(found) == 1, f"rank {rank} should be one process, not {found}"
        return found[0]

    def python_processes(self) -> dict[int, int]:
        """Returns the ranks' interpreters by process id, each with the rank that it was started as."""
        found = {}
        for pid in self.processes():
            with contextlib.suppress(OSError):
                environ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
                values = dict(line.partition("=")[::2] for line in environ)
                ranks = [int(values[name]) for name in _RANK_VARIABLES if name in values]
                if ranks and Path(program).name.startswith("python"):
                    found[pid] = ranks[0]
        return found

    def processes(self) -> list[int]:
        """Returns the ids of all living processes of this launch."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def finish(self, seconds: float = 600.0) -> Outcome:
        """Waits for the launcher's end and checks that no process outlives it by more than a moment."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the job still runs after {seconds:g} s:\n{self.output}") from None
        ended = time.monotonic()
        while self.processes() and time.monotonic() < ended + 10.0:
            time.sleep(0.1)
        left = {pid: _command_line(pid) for pid in self.processes()}
        assert not left, f"processes were left behind: {left}\n{self.output}"
        return Outcome(code, self.output, ended - self._started)

    def end(self) -> None:
        """Kills whatever of this launch still lives."""
        deadline = time.monotonic() + 10.0
        while (living := self.processes()) and time.monotonic() < deadline:
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self.process.wait(10.0)
        self._log.close()


@contextlib.contextmanager
def launched(
    how: str, ranks: int, *arguments: str | Path, program: Path = TRAIN, environ: Mapping[str, str] | None = None
) -> Iterator[Launch]:
    """Starts `program` on some ranks for the time of a with-block.

    Args:
      how: "python" (one rank, no launcher) or one of LAUNCHERS.
      ranks: their number.
      *arguments: the program's.
      program: what each rank runs.
      environ: additional environment variables of all ranks.
    """
    launch = Launch(command(how, ranks, program, *arguments), environment_of_ranks() | dict(environ or {}))
    try:
        yield launch
    finally:
        launch.end()


@contextlib.contextmanager
def surviving(ranks: int, program: Path, *arguments: str | Path) -> Iterator[Launch]:
    """Starts `program` on ranks that mpirun lets live when one of them dies; see `launched`."""
    mpirun, *others = command("mpirun", ranks, program, *arguments)
    launch = Launch([mpirun, "--enable-recovery", *others], environment_of_ranks())
    try:
        yield launch
    finally:
        launch.end()


def command(how: str, ranks: int, program: Path, *arguments: str | Path) -> list[str]:
    """Returns the command that starts `program` on some ranks; see `launched`."""
    bin_folder = Path(sys.executable).parent
    start = {
        "python": [],
        # Ranks may outnumber the cores; unbound, since other jobs may sit on the same cores.
        "mpirun": [str(bin_folder / "mpirun"), "--oversubscribe", "--bind-to", "none", "-np", str(ranks)],
        "horovodrun --mpi": [str(bin_folder / "horovodrun"), "--mpi", "-np", str(ranks), "-H", f"localhost:{ranks}"],
        "horovodrun --gloo": [str(bin_folder / "horovodrun"), "--gloo", "-np", str(ranks), "-H", f"localhost:{ranks}"],
    }[how]
    assert how != "python" or ranks == 1
    return [*start, sys.executable, str(program), *map(str, plain(program, arguments))]


def plain(program: Path, arguments: Sequence[str | Path]) -> list[str | Path]:
    """Returns arguments that ask train.py, or a program that runs it, for plain DQN unless they name another preset.

    One of ALE's games has a preset, too. The laws are of the settings that a test names, not of those that CartPole
    learns best with.
    """
    has_own = any(str(argument) == "--preset" or str(argument).startswith("ALE/") for argument in arguments)
    return [*arguments, *(("--preset", "dqn") if program.name.endswith("train.py") and not has_own else ())]


def environment_of_ranks() -> dict[str, str]:
    """Returns this process's environment without any launcher's variables, for ranks that find the tests' programs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    own |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return own | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(PROGRAMS)])}


def run(
    how: str,
    ranks: int,
    *arguments: str | Path,
    program: Path = TRAIN,
    environ: Mapping[str, str] | None = None,
    seconds: float = 600.0,
) -> Outcome:
    """Runs a program to its end; see `launched`."""
    with launched(how, ranks, *arguments, program=program, environ=environ) as launch:
        return launch.finish(seconds)


def run_well(how: str, ranks: int, *arguments: str | Path, **options: Any) -> Outcome:
    """Runs a program that has to end with exit code 0; takes what `run` takes."""
    outcome = run(how, ranks, *arguments, **options)
    assert outcome.code == 0, outcome.output
    return outcome


def read_metrics(run_directory: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl, of one kind or all."""
    records = [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if kind in (None, record["kind"])]


def timeless_metrics(run_directory: Path) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl without the fields that differ between two runs of the same job."""
    return [
        {name: value for name, value in record.items() if not _depends_on_the_machine(name)}
        for record in read_metrics(run_directory)
    ]


def _depends_on_the_machine(field: str) -> bool:
    measured = ("unix_time", "seconds", "resident_mebibytes")
    return field in measured or "_microseconds" in field or "_per_second" in field


def checkpoints(run_directory: Path) -> list[Path]:
    """Returns the folders of all checkpoints that have a manifest, oldest first."""
    return sorted(path.parent for path in run_directory.glob("checkpoints/*/manifest.json"))


def newest_checkpoint(run_directory: Path) -> Path:
    """Returns the folder of the newest checkpoint that has a manifest."""
    return max(checkpoints(run_directory))


def _count_launch() -> None:
    """Adds the running test to the file that HVD_DQN_LAUNCHES names, for a count of the launches by test."""
    if path := os.environ.get("HVD_DQN_LAUNCHES"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(os.environ.get("PYTEST_CURRENT_TEST", "?") + "\n")


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "?"
