"""Bad input: one clear message with the remedy, exit code 2, on all ranks at once, no traceback, in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from launching import run

pytestmark = pytest.mark.parallel

SECONDS = 120.0
"""Five to ten where the machine is quiet, nearly all of them the import of TensorFlow; the rest is for a busy one."""


@dataclass(frozen=True)
class Mistake:
    """A command line and what the answer must say; {folder} stands for the test's own."""

    arguments: str
    says: list[str]
    """Each of these is printed; the first of them exactly once."""
    prepare: Callable[[Path], object] = field(default=lambda folder: None)
    tracebacks: int = 0


def _file_in_the_way(folder: Path) -> None:
    (folder / "file").write_text("not a folder")


def _existing_run(folder: Path) -> None:
    run_directory = folder / "runs" / "CartPole-v1" / "taken"
    run_directory.mkdir(parents=True)
    (run_directory / "config.json").write_text("{}")


def _empty_directory(folder: Path) -> None:
    (folder / "empty").mkdir()


def _foreign_run(folder: Path) -> None:
    (folder / "foreign").mkdir()
    (folder / "foreign" / "config.json").write_text('{"somebody": "else"}')


QUICK = "--learning-starts 32 --evaluation-period 0 --num-envs 4"

AT_THE_DOOR = {
    "unknown preset": Mistake("--preset cartpol", ["no preset 'cartpol'", "did you mean 'cartpole'?"]),
    "unknown option": Mistake("--lerning-rate 0.1", ["--lerning-rate", "--learning-rate"]),
    "negative amount": Mistake("--total-env-steps -5", ["--total-env-steps is -5", "give at least 1"]),
    "resume of an empty directory": Mistake(
        "--resume {folder}/empty", ["{folder}/empty: no config.json in it", "give the folder"], _empty_directory
    ),
    "resume of a foreign directory": Mistake(
        "--resume {folder}/foreign", ["{folder}/foreign/config.json is not the configuration"], _foreign_run
    ),
    "unreadable config file": Mistake("--config {folder}/none.toml", ["cannot read --config {folder}/none.toml"]),
}
"""Found before the ranks meet."""

TOGETHER = {
    "unknown environment": Mistake("--env CartPol-v1", ["no environment 'CartPol-v1'", "Did you mean: `CartPole`"]),
    "continuous actions": Mistake("--env Pendulum-v1", ["has the action space Box", "needs Discrete actions"]),
    "two actions at once": Mistake(
        "--env hostile_envs:TwoLevers-v0", ["has the action space MultiDiscrete", "needs Discrete actions"]
    ),
    "dict observation": Mistake(
        "--env hostile_envs:DictObservation-v0", ["has the observation space Dict", "supported are Box"]
    ),
    "fewer environments than ranks": Mistake(
        "--num-envs 1", ["--num-envs 1 is less than one for each of 2 ranks", "give at least 2"]
    ),
    "batch smaller than the ranks": Mistake(
        "--global-batch-size 1", ["--global-batch-size 1 is less than one for each of 2 ranks", "give at least 2"]
    ),
    "unwritable runs folder": Mistake(
        "--runs-dir {folder}/file", ["cannot make the run directory {folder}/file/", "--runs-dir"], _file_in_the_way
    ),
    "Slurm's time limit outside of Slurm": Mistake("--time-limit slurm", ["this is no Slurm job", "give a time"]),
    "existing run": Mistake(
        "--name taken", ["exists already", "--resume {folder}/runs/CartPole-v1/taken"], _existing_run
    ),
}
"""Found when the ranks have met."""

IN_MID_RUN = {
    "NaN reward": Mistake(
        f"--env hostile_envs:NanReward-v0 {QUICK}",
        ["rank 1: environment 0 returned reward nan at its step 40", "fix the environment"],
    ),
    "NaN observation": Mistake(
        f"--env hostile_envs:NanObservation-v0 {QUICK}",
        ["rank 1: environment 0 returned a non-finite observation at its step 40"],
    ),
    "gradient that is not finite": Mistake(
        f"--env hostile_envs:HugeReward-v0 {QUICK}",
        ["the gradient of learner step 1 is not finite on rank(s) 1", "Lower --learning-rate"],
    ),
    "gradient that is not finite, in TensorFlow": Mistake(
        f"--env hostile_envs:HugeReward-v0 --backend tensorflow {QUICK}",
        ["the gradient of learner step 1 is not finite on rank(s) 1", "Lower --learning-rate"],
    ),
    "observation of another shape": Mistake(
        f"--env hostile_envs:OtherShape-v0 {QUICK}",
        ["rank 1: environment 0 returned an observation of shape (5,) at its step 40", "says (3,)"],
    ),
    "environment that raises": Mistake(
        f"--env hostile_envs:Raises-v0 {QUICK}",
        ["rank 1: the environment raised an exception", "RuntimeError: the floor gave way", "hostile_envs.py"],
        tracebacks=1,
    ),
}
"""Met by rank 1 alone, in most cases in its environments' fortieth step."""


def check(mistake: Mistake, how: str, ranks: int, folder: Path) -> set[Path]:
    """Runs a mistaken command, looks at the answer and returns the files and folders that it has left."""
    mistake.prepare(folder)
    before = set(folder.rglob("*"))
    arguments = mistake.arguments.format(folder=folder).split()
    if "--runs-dir" not in arguments:
        arguments += ["--runs-dir", str(folder / "runs")]
    outcome = run(how, ranks, *arguments)
    assert outcome.code == 2, outcome.output
    says = [text.format(folder=folder) for text in mistake.says]
    for text in says:
        assert text in outcome.output
    assert outcome.output.count(says[0]) == 1, outcome.output
    assert outcome.output.count("Traceback") == mistake.tracebacks, outcome.output
    assert outcome.seconds < SECONDS
    return set(folder.rglob("*")) - before


@pytest.mark.parametrize("name", [*AT_THE_DOOR, *TOGETHER, *IN_MID_RUN])
def test_bad_input_ends_all_ranks_with_one_message(name: str, tmp_path: Path) -> None:
    """Two ranks under mpirun: exit code 2, the message once with its remedy, nobody waits for a timeout.

    A run that never began leaves nothing to clear away.
    """
    left = check((AT_THE_DOOR | TOGETHER | IN_MID_RUN)[name], "mpirun", 2, tmp_path)
    assert name in IN_MID_RUN or not left


@pytest.mark.parametrize("name", ["unknown preset", "resume of an empty directory", "unknown environment"])
def test_bad_input_ends_a_single_process_with_one_message(name: str, tmp_path: Path) -> None:
    """The same answers without a launcher."""
    check((AT_THE_DOOR | TOGETHER)[name], "python", 1, tmp_path)
