"""Bad input: one clear message with the remedy and exit code 2 on all ranks, no traceback, no waiting for a timeout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from launching import GENERAL, LEARNERS, PROGRAMS, Outcome, run
from persistent_ranks import PersistentRanks

pytestmark = pytest.mark.parallel


@dataclass(frozen=True)
class Mistake:
    """A command line and what the answer must say; {folder} stands for the test's own."""

    arguments: str
    says: list[str]
    """Each of these is printed; the first of them exactly once."""
    prepare: Callable[[Path], object] = field(default=lambda folder: None)


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
        "--resume {folder}/empty",
        ["{folder}/empty: not a run directory: no config.json in it", "give the folder"],
        _empty_directory,
    ),
    "resume of a foreign directory": Mistake(
        "--resume {folder}/foreign", ["{folder}/foreign/config.json is not the configuration"], _foreign_run
    ),
    "unreadable config file": Mistake("--config {folder}/none.toml", ["cannot read --config {folder}/none.toml"]),
}
"""Found before TensorFlow is imported and the ranks are joined."""

TOGETHER = {
    "unknown environment": Mistake("--env CartPol-v1", ["no environment 'CartPol-v1'", "Did you mean: `CartPole`"]),
    "continuous actions": Mistake(
        "--env Pendulum-v1", ["has the action space Box", "give --action-bins 2 (or more) with --algorithm decqn"]
    ),
    "two actions at once": Mistake("--env hostile_envs:TwoLevers-v0", ["have 2 joints", "give --algorithm decqn"]),
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
"""Found once the ranks are joined."""

IN_MID_RUN = {
    "NaN reward": Mistake(
        f"--env hostile_envs:NanReward-v0 {QUICK}",
        ["rank 1: environment 2 returned reward nan at its step 40", "fix the environment"],
    ),
    "NaN observation": Mistake(
        f"--env hostile_envs:NanObservation-v0 {QUICK}",
        ["rank 1: environment 2 returned a non-finite observation at its step 40"],
    ),
    **{
        f"gradient that is not finite, {learner} learner": Mistake(
            f"--env hostile_envs:HugeReward-v0 {' '.join(options)} {QUICK}",
            ["the gradient of learner step 1 is not finite on rank(s) 1", "Lower --learning-rate"],
        )
        for learner, options in LEARNERS.items()
    },
    "observation of another shape": Mistake(
        f"--env hostile_envs:OtherShape-v0 {QUICK}",
        ["rank 1: environment 2 returned an observation of shape (5,) at its step 40", "says (3,)"],
    ),
    **{
        f"environment that {what} in {call}": Mistake(
            "--env misbehaving_envs:Misbehaves-v0 --env-kwargs "
            f'{{{{"rank":1,"call":"{call}","at":{at},"what":"{what}","saves":true}}}} {QUICK}',
            [says, "misbehaving_envs.py"],
        )
        for what, call, at, says in (
            ("exits", "step", 30, "rank 1: environment 2 raised SystemExit: 0, in step() at its step 31"),
            ("interrupts", "reset", 1, "rank 1: environment 2 raised KeyboardInterrupt, in reset()"),
            ("raises", "reset", 0, "rank 1: environment 2 raised RuntimeError: gone, in reset()"),
            ("exits", "get_state", 0, "rank 1: environment 2 raised SystemExit: 0, in get_state()"),
        )
    },
    "environment whose process is killed": Mistake(
        "--env misbehaving_envs:Misbehaves-v0 --vectorization async --env-kwargs "
        f'{{{{"rank":1,"call":"step","at":30,"what":"dies","saves":true}}}} {QUICK}',
        ["rank 1: the process of environment 2 has died (killed by SIGKILL)"],
    ),
    "environment that raises": Mistake(
        f"--env hostile_envs:Raises-v0 {QUICK}",
        ["rank 1: environment 2 raised RuntimeError: the floor gave way, in step() at its step 40", "hostile_envs.py"],
    ),
}
"""Met by rank 1 alone, in most cases in its environments' fortieth step."""


def arguments_of(mistake: Mistake, folder: Path) -> list[str]:
    """Returns the mistaken command line, after what it needs has been made."""
    mistake.prepare(folder)
    arguments = mistake.arguments.format(folder=folder).split()
    if "--runs-dir" not in arguments:
        arguments += ["--runs-dir", str(folder / "runs")]
    return arguments


def check(mistake: Mistake, outcome: Outcome, folder: Path) -> None:
    """Checks the exit code and what was said."""
    assert outcome.code == 2, outcome.output
    says = [text.format(folder=folder) for text in mistake.says]
    for text in says:
        assert text in outcome.output
    assert outcome.output.count(says[0]) == 1, outcome.output
    assert "Traceback" not in outcome.output, outcome.output


@pytest.mark.parametrize("name", AT_THE_DOOR)
def test_a_mistake_found_before_the_ranks_are_joined_is_reported_once(name: str, tmp_path: Path) -> None:
    """Two ranks under mpirun, which ends the second once the first has spoken. Nothing is left to clear away."""
    arguments = arguments_of(AT_THE_DOOR[name], tmp_path)
    before = set(tmp_path.rglob("*"))
    check(AT_THE_DOOR[name], run("mpirun", 2, *arguments), tmp_path)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [*TOGETHER, *IN_MID_RUN])
def test_bad_input_ends_all_ranks_with_one_message(
    name: str, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Each of two ranks ends with exit code 2. A run that never began leaves nothing to clear away."""
    mistake = (TOGETHER | IN_MID_RUN)[name]
    arguments = arguments_of(mistake, tmp_path)
    before = set(tmp_path.rglob("*"))
    check(mistake, persistent_ranks.run(2, *arguments), tmp_path)
    assert name in IN_MID_RUN or set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("flag", "scheme"), [("--runs-dir", ""), ("--checkpoint-path", "file://")])
def test_a_folder_that_the_ranks_do_not_share_is_refused_at_the_start(
    flag: str, scheme: str, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """No file is left in it."""
    place = {"--runs-dir": f"{tmp_path}/runs"} | {flag: f"{scheme}{tmp_path}/own"}
    arguments = [part for option in place.items() for part in option]
    short = (*QUICK.split(), "--total-env-steps", "64")
    outcome = persistent_ranks.run(2, *arguments, *short, program=PROGRAMS / "unshared_train.py")
    says = [f"does not see the folder {tmp_path}/own", f"give a {flag} on a file system that all hosts share"]
    check(Mistake("", says), outcome, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["unknown environment", "NaN reward"])
def test_a_launchers_exit_code_is_that_of_the_mistake(name: str, tmp_path: Path) -> None:
    """Before and in the middle of the run, under mpirun."""
    mistake = (TOGETHER | IN_MID_RUN)[name]
    check(mistake, run("mpirun", 2, *arguments_of(mistake, tmp_path), *GENERAL), tmp_path)


@pytest.mark.parametrize("name", ["resume of an empty directory", "unknown environment"])
def test_bad_input_ends_a_single_process_with_one_message(name: str, tmp_path: Path) -> None:
    """The same answers without a launcher."""
    mistake = (AT_THE_DOOR | TOGETHER)[name]
    check(mistake, run("python", 1, *arguments_of(mistake, tmp_path)), tmp_path)
