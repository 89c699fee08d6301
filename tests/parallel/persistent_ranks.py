"""Ranks that stay up for the whole session and run one program after another.

A launch takes five to ten seconds, nearly all of them the import of TensorFlow; a program on ranks that have imported
it already takes one. Every program still runs on real ranks of a real MPI job, and starts and ends Horovod itself.

What needs processes of its own is launched instead (`launching.py`): a killed rank, an exit code that passes through a
launcher, a resume that may owe nothing to the memory of the process that saved.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from launching import PROGRAMS, TRAIN, Launch, Outcome, command, environment_of_ranks, plain


class Job:
    """A program that runs on persistent ranks."""

    def __init__(self, launch: Launch, logs: list[Path], codes: list[Path]) -> None:
        """Takes the ranks' launch and the files of the job, one per rank."""
        self._launch, self._logs, self._codes = launch, logs, codes
        self._started = time.monotonic()

    @property
    def output(self) -> str:
        """Returns what the ranks have printed so far, rank after rank."""
        texts = [path.read_text(errors="replace") for path in self._logs if path.exists()]
        return "".join(texts).replace("\r\n", "\n")

    def finish(self, seconds: float) -> Outcome:
        """Waits until the program has ended on all ranks; they must end with one exit code."""
        deadline = time.monotonic() + seconds
        while not all(path.exists() for path in self._codes):
            assert self._launch.process.poll() is None, f"the ranks died:\n{self.output}\n{self._launch.output}"
            assert time.monotonic() < deadline, f"the job still runs after {seconds:g} s:\n{self.output}"
            time.sleep(0.02)
        codes = [int(path.read_text()) for path in self._codes]
        assert len(set(codes)) == 1, f"the ranks' exit codes are {codes}:\n{self.output}"
        return Outcome(codes[0], self.output, time.monotonic() - self._started)


class PersistentRanks:
    """Launches of one, two or more ranks, each started when it is first used."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        self._launches: dict[int, tuple[Launch, Path, int]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="persistent-ranks-")

    def __enter__(self) -> PersistentRanks:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all ranks."""
        for ranks in list(self._launches):
            self._end(ranks)
        self._folder.cleanup()

    def run(
        self,
        ranks: int,
        *arguments: str | Path,
        program: Path = TRAIN,
        environ: Mapping[str, str] | None = None,
        seconds: float = 600.0,
    ) -> Outcome:
        """Runs a program to its end on some ranks, without a launcher on one; takes what `launching.run` takes.

        Ranks that die or get stuck fail this job alone: the next one gets new ranks.
        """
        try:
            return self._start(ranks, arguments, program, environ or {}).finish(seconds)
        except BaseException:
            self._end(ranks)
            raise

    def run_well(self, ranks: int, *arguments: str | Path, **options: Any) -> Outcome:
        """Runs a program that has to end with exit code 0; takes what `run` takes."""
        outcome = self.run(ranks, *arguments, **options)
        assert outcome.code == 0, outcome.output
        return outcome

    def _start(self, ranks: int, arguments: tuple[str | Path, ...], program: Path, environ: Mapping[str, str]) -> Job:
        if ranks not in self._launches:
            folder = Path(tempfile.mkdtemp(prefix=f"{ranks}-", dir=self._folder.name))
            how = "python" if ranks == 1 else "mpirun"
            start = command(how, ranks, PROGRAMS / "run_in_turn.py", folder, str(os.getpid()))
            self._launches[ranks] = Launch(start, environment_of_ranks()), folder, 0
        launch, folder, number = self._launches[ranks]
        self._launches[ranks] = launch, folder, number + 1
        job = {
            "program": str(program),
            "arguments": [str(argument) for argument in plain(program, arguments)],
            "environ": dict(environ),
        }
        _write(folder / f"{number}.json", job)
        files = [folder / f"{number}.rank{rank}" for rank in range(ranks)]
        logs, codes = ([file.with_name(file.name + suffix) for file in files] for suffix in (".log", ".code"))
        return Job(launch, logs, codes)

    def _end(self, ranks: int) -> None:
        if ranks in self._launches:
            launch, *_ = self._launches.pop(ranks)
            launch.end()


def _write(path: Path, content: object) -> None:
    """Writes JSON in one step, as ranks look for the file at any time."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    os.replace(part, path)
