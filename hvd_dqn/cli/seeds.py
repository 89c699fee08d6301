"""hvd-dqn train --seeds 0-4: trains one run per seed, one after the other, each in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from hvd_dqn.cli.arguments import own_directory, parse
from hvd_dqn.cli.entry import program
from hvd_dqn.config import RESUME_AUTO, Config
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.errors import EXIT_DONE, EXIT_REQUEUE, EXIT_USER_ERROR, CheckpointError, UserError
from hvd_dqn.files import METRICS_BYTES, parse_json, read_file
from hvd_dqn.run.directory import read_config_of

PROGRAM = "hvd-dqn train"
FLAG = "--seeds"
_SEEDS = r"\d{1,18}(-\d{1,18})?"
_MOST_SEEDS = 1_000
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_OF_EACH_RUN = {
    "--seed": "gives each run its seed",
    "--resume": "resumes each run that has begun",
    "--checkpoint-path": "trains several runs, and a checkpoint path is of one",
}


def parse_seeds(text: str) -> list[int]:
    """Returns the seeds of a text such as 0-4 or 1,3,9, in the order of the text.

    Raises:
      UserError: if it is another text, or has too many seeds.
    """
    if not re.fullmatch(rf"{_SEEDS}(,{_SEEDS})*", text):
        raise UserError(f"{FLAG} {text}: give seeds and ranges of them, such as 0-4 or 1,3,9")
    ranges = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        ranges.append(range(int(first), int(last or first) + 1))
        if not ranges[-1]:
            raise UserError(f"{FLAG} {text}: {part} is empty: write the smaller seed first, such as 0-4")
    if sum(len(seeds) for seeds in ranges) > _MOST_SEEDS:
        raise UserError(f"{FLAG} {text}: give at most {_MOST_SEEDS} seeds")
    return list(dict.fromkeys(seed for seeds in ranges for seed in seeds))


def name_of(name: str, seed: int) -> str:
    """Returns the name of the run of a seed."""
    return f"{name}-seed{seed}"


def main(arguments: Sequence[str]) -> int:
    """Trains all seeds and returns the exit code: that of the first run that did not end well."""
    try:
        runs = _read(arguments)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    try:
        return _train(runs)
    except KeyboardInterrupt:  # between two runs
        return EXIT_REQUEUE


def _train(runs: Sequence[tuple[int, list[str], Config]]) -> int:
    """Trains each run that is not finished; returns the exit code of the last one."""
    for number, (seed, given, config) in enumerate(runs, start=1):
        place = own_directory(config).path
        if _is_finished(config):
            print(f"{PROGRAM}: seed {seed} ({number} of {len(runs)}) is finished: {place}", flush=True)
            continue
        print(f"{PROGRAM}: seed {seed} ({number} of {len(runs)}): {place}", flush=True)
        code = _run([sys.executable, str(program()), *given])
        if code != EXIT_DONE:
            print(f"{PROGRAM}: seed {seed} ended with code {code}: the same command continues there", file=sys.stderr)
            return code
    return EXIT_DONE


def _read(arguments: Sequence[str]) -> list[tuple[int, list[str], Config]]:
    """Returns each seed with the arguments and the configuration of its run.

    Raises:
      UserError: for anything that the first run would end with.
    """
    if read_launch().under_launcher:
        raise UserError(
            f"{FLAG} starts each run itself, on one rank: leave the launcher out. For several ranks per run use a loop "
            "(for seed in 0 1 2; do horovodrun -np 4 hvd-dqn train --seed $seed ...; done) or a job array: "
            "launch/slurm/submit --seeds 0-2"
        )
    text, rest = _take_seeds(arguments)
    seeds = parse_seeds(text)
    for flag, reason in _OF_EACH_RUN.items():
        if any(argument.partition("=")[0].replace("_", "-") == flag for argument in rest):
            raise UserError(f"{FLAG} {reason}: leave {flag} out")
    name = parse(rest, read_config_of, quiet=False).job.name
    if not name:
        raise UserError(f"{FLAG} names each run NAME-seed0 and so on, to find it at the next start: add --name NAME")
    runs = []
    for seed in seeds:
        given = [*rest, "--seed", str(seed), "--name", name_of(name, seed), "--resume", RESUME_AUTO]
        runs.append((seed, given, parse(given, read_config_of, quiet=True)))
    return runs


def _take_seeds(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the value of --seeds, and the other arguments."""
    rest = list(arguments)
    position = next(i for i, argument in enumerate(rest) if argument.partition("=")[0] == FLAG)
    _, equals, text = rest.pop(position).partition("=")
    if not equals:
        text = rest.pop(position) if position < len(rest) else ""
    return text, rest


def _is_finished(config: Config) -> bool:
    """Returns whether a run has its final evaluation, and all of its env steps."""
    try:
        lines = read_file(own_directory(config).metrics, METRICS_BYTES).splitlines()
        last = parse_json(lines[-1])
        return last["kind"] == "final_evaluation" and last["env_steps"] >= config.job.total_env_steps
    except (OSError, CheckpointError, ValueError, IndexError, KeyError, TypeError):
        return False


def _run(command: Sequence[str]) -> int:
    """Runs a command and returns its exit code; signals to this process are passed on to it.

    The command has a session of its own: Ctrl-C reaches it once, through this process.
    """
    process = subprocess.Popen(command, start_new_session=True)

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    # Under nohup the hang-up is ignored here and in the run.
    heard = [number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
