"""Writes a Slurm job script into the run's directory and submits it; refuses whatever would fail after the queue.

Behind launch/slurm/submit. Nothing heavy is imported here: an answer takes a second.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvd_dqn.cli.arguments import own_directory, parse
from hvd_dqn.config import Config
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from hvd_dqn.run.directory import read_config_of
from hvd_dqn.run.time_limit import parse_time
from hvd_dqn.validation import scale, shares

DESCRIPTION = (
    "Submits a training run to Slurm: launch/slurm/submit --nodes 4 --ranks-per-node 2 -- --preset lunarlander. "
    "What comes after -- goes to train.py. The job saves before its time limit or a preemption, goes back to the queue "
    "and resumes until the run is finished."
)
PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
"""The environment variables that a job gets from the shell that submits it, in addition to those that are named."""
_OF_THE_SCRIPT = {
    "--resume": "a job resumes the run of its --name by itself",
    "--time-limit": "the job asks Slurm; say how long an allocation may last with --time before the --",
}
_SIGNAL_SECONDS = 60
_MEMORY = re.compile(r"\d+[KMGT]?")


@dataclass(frozen=True)
class Submission:
    """How to submit."""

    nodes: int = 1
    """Nodes of the allocation."""
    ranks_per_node: int = 1
    """Ranks on each node: one per GPU with --gpus, else one per --cores-per-rank cores."""
    cores_per_rank: int = 1
    """Cores of each rank, and the size of its thread pools."""
    gpus: bool = False
    """Ask for one GPU per rank."""
    time: str = "01:00:00"
    """Time limit of one allocation in Slurm's forms; the run takes as many allocations as it needs."""
    partition: str = ""
    """Slurm's partition; empty: the site's default."""
    account: str = ""
    """Slurm's account; empty: the site's default."""
    memory: str = ""
    """Memory per node in Slurm's form (such as 16G); empty: the site's default."""
    container: str = ""
    """Container image: a file or folder, or a name for Pyxis; empty: the environment in .venv."""
    runtime: Literal["apptainer", "charliecloud", "pyxis"] = "apptainer"
    """What runs the container."""
    launcher: Literal["auto", "srun", "pmix", "pmi2", "mpirun", "horovodrun", "elastic"] = "auto"
    """What starts the ranks; auto: for CPU jobs MPI (pmix, else mpirun) where it works, else plain srun with Gloo."""
    min_ranks: int = 0
    """Elastic jobs only: wait while there are fewer ranks; 0: the ranks of one node."""
    seeds: str = ""
    """Seeds of a job array, one run each, such as 0-4 or 1,3,9; empty: one run."""
    environment: tuple[str, ...] = ()
    """Names of environment variables that the job gets as well."""
    slurm: tuple[str, ...] = ()
    """Further options of sbatch as they are, such as --slurm=--qos=long."""
    dry_run: bool = False
    """Print the job script and submit nothing."""

    @property
    def ranks(self) -> int:
        """Returns the number of ranks."""
        return self.nodes * self.ranks_per_node


def read_submission(arguments: Sequence[str]) -> Submission:
    """Parses the options before the "--".

    Raises:
      UserError: for anything wrong with them.
      SystemExit: with code 0 after --help.
    """
    import tyro

    lists = tyro.conf.UseAppendAction[Submission]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            submission: Submission = tyro.cli(
                lists, prog="launch/slurm/submit", description=DESCRIPTION, args=list(arguments)
            )
    except SystemExit as leaving:
        if leaving.code == 0:
            raise
        raise UserError(complaint.getvalue().rstrip()) from None
    _check(submission)
    return submission


def _check(submission: Submission) -> None:
    for name in ("nodes", "ranks_per_node", "cores_per_rank"):
        value = getattr(submission, name)
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}: it must be at least 1")
    try:
        parse_time(submission.time)
    except UserError:
        raise UserError(f"--time {submission.time}: give minutes, H:M:S or D-H:M:S") from None
    if submission.memory and not _MEMORY.fullmatch(submission.memory):
        raise UserError(f"--memory {submission.memory}: give a number and K, M, G or T, such as 16G")
    if submission.seeds and not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", submission.seeds):
        raise UserError(f"--seeds {submission.seeds}: give seeds and ranges of them, such as 0-4 or 1,3,9")
    if submission.container and submission.runtime != "pyxis" and not Path(submission.container).exists():
        raise UserError(
            f"--container {submission.container}: there is no such image; build it (docs/launching.md), or name the "
            "runtime that fetches it: --runtime pyxis"
        )
    if submission.container and submission.launcher in ("horovodrun", "elastic"):
        raise UserError(f"--launcher {submission.launcher} starts ranks over ssh, outside of containers: leave it out")
    if submission.min_ranks and submission.launcher != "elastic":
        raise UserError("--min-ranks is for ranks that may come and go: add --launcher elastic, or leave it out")
    if not 0 <= submission.min_ranks <= submission.ranks:
        raise UserError(f"--min-ranks {submission.min_ranks}: give 1 to {submission.ranks}, the job's ranks")
    if submission.container and submission.runtime == "pyxis" and submission.launcher == "mpirun":
        raise UserError("Pyxis belongs to srun: leave --launcher mpirun out, or choose --launcher pmix")
    _check_environment(submission.environment)


def _check_environment(names: Sequence[str]) -> None:
    """Refuses what names no variable that could be handed on."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(f"--environment {name}: give a variable's name alone; its value is the one it has here")
        if name not in os.environ:
            raise UserError(f"--environment {name}: no such environment variable here")


def read_training(arguments: Sequence[str], submission: Submission) -> tuple[Config, list[str]]:
    """Returns the run's configuration and its arguments with a name, checked as the ranks would.

    Raises:
      UserError: for anything that the job would end with.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    for name, reason in _OF_THE_SCRIPT.items():
        if name in given:
            raise UserError(f"{name} is the job script's: {reason}")
    if submission.seeds and "--seed" in given:
        raise UserError("--seeds gives each run of the array its seed: leave --seed out")
    named = list(arguments)
    if "--name" not in given:
        from_file = parse(arguments, read_config_of, quiet=False).job.name
        named = ["--name", from_file or time.strftime("%Y%m%d-%H%M%S"), *named]
    config = parse([*named, "--resume", "auto"], read_config_of, quiet=False)
    shares(scale(config, submission.ranks), 0, submission.ranks)
    reserve = config.runtime.time_reserve_seconds
    if parse_time(submission.time) <= reserve:
        raise UserError(
            f"--time {submission.time} is not more than the {reserve:g} s that the job keeps for saving: "
            "allow more time, or lower --time-reserve-seconds"
        )
    return config, named


def job_script(root: Path, submission: Submission, name: str, folder: Path, training: Sequence[str]) -> str:
    """Returns the text of the job script.

    Args:
      root: the project's folder.
      submission: how to submit.
      name: the run's name.
      folder: where the job's output goes.
      training: train.py's arguments.
    """
    options = [
        f"--job-name={name}",
        f"--chdir={Path.cwd()}",
        f"--output={folder / _output(submission)}",
        "--open-mode=append",
        f"--nodes={submission.nodes}",
        f"--ntasks-per-node={submission.ranks_per_node}",
        f"--cpus-per-task={submission.cores_per_rank}",
        f"--time={submission.time}",
        f"--signal=B:USR1@{_SIGNAL_SECONDS}",
        "--requeue",
        f"--export={','.join(dict.fromkeys((*PASSED_ON, *submission.environment)))}",
    ]
    if submission.launcher == "elastic":
        options.append("--no-kill")
    if submission.gpus:
        options.append(f"--gpus-per-node={submission.ranks_per_node}")
    for option in ("partition", "account"):
        if value := getattr(submission, option):
            options.append(f"--{option}={value}")
    if submission.memory:
        options.append(f"--mem={submission.memory}")
    if submission.seeds:
        options.append(f"--array={submission.seeds}")
    options += submission.slurm
    command = ["exec", str(root / "launch" / "slurm" / "train.sbatch"), "--launcher", submission.launcher]
    if submission.launcher == "elastic":
        command += ["--min-ranks", str(submission.min_ranks or submission.ranks_per_node)]
    if submission.container:
        image = submission.container if submission.runtime == "pyxis" else str(Path(submission.container).resolve())
        command += ["--container", image, "--runtime", submission.runtime]
    lines = ["#!/usr/bin/env bash", *(f"#SBATCH {shlex.quote(option)}" for option in options)]
    return "\n".join([*lines, shlex.join([*command, "--", *training]), ""])


def _output(submission: Submission) -> str:
    """Returns the name of a job's output file, with Slurm's patterns."""
    return "%A-seed%a.out" if submission.seeds else "%j.out"


def submit(root: Path, arguments: Sequence[str]) -> int:
    """Checks, writes, submits; returns the exit code.

    Raises:
      UserError: before anything is written, or if Slurm refuses the job.
    """
    own, training = list(arguments), list[str]()
    if "--" in own:
        position = own.index("--")
        own, training = own[:position], own[position + 1 :]
    submission = read_submission(own)
    config, training = read_training(training, submission)
    folder = own_directory(config).path.absolute() / "slurm"
    script = job_script(root, submission, config.job.name, folder, training)
    if submission.dry_run:
        print(script, end="")
        return EXIT_DONE
    if shutil.which("sbatch") is None:
        raise UserError("sbatch is not in PATH: this is no machine that submits to Slurm (--dry-run prints the script)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.sbatch").write_text(script)
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}; choose another --runs-dir") from None
    command = ["sbatch", "--parsable", str(folder / "job.sbatch")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise UserError(f"Slurm refuses the job:\n{answer.stderr.strip()}")
    job = answer.stdout.strip().partition(";")[0]
    print(f"submitted job {job}: {submission.ranks} rank(s) on {submission.nodes} node(s)")
    print(f"  script {folder / 'job.sbatch'}")
    print(
        f"  output {folder / ('%A-seed%a.out' if submission.seeds else '%j.out').replace('%A', job).replace('%j', job)}"
    )
    return EXIT_DONE


def main(arguments: list[str]) -> int:
    """Submits; the first argument is the project's folder."""
    try:
        return submit(Path(arguments[0]), arguments[1:])
    except UserError as error:
        print(f"launch/slurm/submit: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
