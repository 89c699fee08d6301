"""Writes a Slurm job script into the run's directory and submits it; refuses whatever would fail after the queue.

Behind launch/slurm/submit. Nothing heavy is imported here: an answer takes a second.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hvd_dqn.cli.arguments import own_directory, parse
from hvd_dqn.cli.slurm_options import Submission, read_submission
from hvd_dqn.config import Config
from hvd_dqn.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from hvd_dqn.run.directory import read_config_of
from hvd_dqn.run.terminal import keep_standard_streams
from hvd_dqn.run.time_limit import parse_time
from hvd_dqn.strategies import check_ranks, servers_of, uses_servers
from hvd_dqn.validation import scale, shares

PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
"""The environment variables that a job gets from the shell that submits it, in addition to those that are named."""
_OF_THE_SCRIPT = {
    "--resume": "a job resumes the run of its --name by itself",
    "--time-limit": "the job asks Slurm; say how long an allocation may last with --time before the --",
}
_SIGNAL_SECONDS = 60


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
    ranks, launcher = submission.allocation.ranks, submission.launcher
    gloo = launcher in ("srun", "horovodrun") or (launcher == "auto" and submission.allocation.gpus)
    if gloo and uses_servers(config):
        raise UserError(
            f"--launcher {launcher} starts these ranks for Gloo, and parameter servers need MPI: give --launcher pmix "
            "or mpirun"
        )
    check_ranks(config, ranks, by_mpi=True, elastic=launcher == "elastic")
    workers = ranks - servers_of(config)
    shares(scale(config, workers), 0, workers)
    reserve = config.runtime.time_reserve_seconds
    if parse_time(submission.allocation.time) <= reserve:
        raise UserError(
            f"--time {submission.allocation.time} is not more than the {reserve:g} s that the job keeps for saving: "
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
    allocation = submission.allocation
    options = [
        f"--job-name={name}",
        f"--chdir={Path.cwd()}",
        f"--output={folder / _output(submission)}",
        "--open-mode=append",
        f"--nodes={allocation.nodes}",
        f"--ntasks-per-node={allocation.ranks_per_node}",
        f"--cpus-per-task={allocation.cores_per_rank}",
        f"--time={allocation.time}",
        f"--signal=B:USR1@{_SIGNAL_SECONDS}",
        "--requeue",
        f"--export={','.join(dict.fromkeys((*PASSED_ON, *submission.environment)))}",
    ]
    if submission.launcher == "elastic":
        options.append("--no-kill")
    if allocation.gpus:
        options.append(f"--gpus-per-node={allocation.ranks_per_node}")
    for option in ("partition", "account"):
        if value := getattr(allocation, option):
            options.append(f"--{option}={value}")
    if allocation.memory:
        options.append(f"--mem={allocation.memory}")
    if submission.seeds:
        options.append(f"--array={submission.seeds}")
    options += submission.slurm
    command = ["exec", str(root / "launch" / "slurm" / "train.sbatch"), "--launcher", submission.launcher]
    if submission.launcher == "elastic":
        command += ["--min-ranks", str(submission.min_ranks or allocation.ranks_per_node)]
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
    print(f"submitted job {job}: {submission.allocation.ranks} rank(s) on {submission.allocation.nodes} node(s)")
    print(f"  script {folder / 'job.sbatch'}")
    print(f"  output {folder / _output(submission).replace('%A', job).replace('%j', job)}")
    return EXIT_DONE


def main(arguments: list[str]) -> int:
    """Submits; the first argument is the project's folder."""
    try:
        return submit(Path(arguments[0]), arguments[1:])
    except UserError as error:
        print(f"launch/slurm/submit: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


if __name__ == "__main__":
    keep_standard_streams()
    sys.exit(main(sys.argv[1:]))
