"""Laws of the run directory."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from hvd_dqn.checkpoint.listing import newest_checkpoint
from hvd_dqn.config import Config, replace
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.errors import UserError
from hvd_dqn.run.config_file import CONFIG_FILE
from hvd_dqn.run.directory import RunDirectory, read_config_of
from hvd_dqn.training.run_directory import RunDirectoryHandle


def test_a_run_lies_below_its_environment(tmp_path: Path) -> None:
    directory = RunDirectory.create(str(tmp_path / "runs"), "CartPole-v1", "first")
    assert directory.path == tmp_path / "runs" / "CartPole-v1" / "first"
    assert directory.path.is_dir()
    assert {directory.metrics.name, directory.tensorboard.name, directory.checkpoints.name} == {
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
    }


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "some.module:Thing-v0", "hvd_dqn/TreasureMaze-v0"])
def test_an_environments_folder_has_one_level(tmp_path: Path, env_id: str) -> None:
    path = RunDirectory.create(str(tmp_path), env_id, "x").path
    assert path.parent.parent == tmp_path
    assert not set(path.parent.name) & set("/:")


def test_runs_without_a_name_never_share_a_directory(tmp_path: Path) -> None:
    paths = {RunDirectory.create(str(tmp_path), "E", "").path for _ in range(5)}
    assert len(paths) == 5


def test_another_runs_directory_is_refused_with_both_remedies(tmp_path: Path) -> None:
    RunDirectory.create(str(tmp_path), "E", "x").write_config({"config": {}})
    with pytest.raises(UserError, match=r"choose another --name.*--resume"):
        RunDirectory.create(str(tmp_path), "E", "x")


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    RunDirectory.create(str(tmp_path), "E", "x")
    assert RunDirectory.create(str(tmp_path), "E", "x").path.is_dir()


@pytest.mark.parametrize("blocked", ["", "E", "E/x"])
def test_a_file_in_the_way_is_refused_with_the_remedy(tmp_path: Path, blocked: str) -> None:
    way = tmp_path / "runs" / blocked
    way.parent.mkdir(parents=True, exist_ok=True)
    way.write_text("I was here first")
    with pytest.raises(UserError, match=r"--runs-dir|--name"):
        RunDirectory.create(str(tmp_path / "runs"), "E", "x")
    assert way.read_text() == "I was here first"


def test_a_folder_that_cannot_be_written_is_refused_with_the_remedy() -> None:
    """Not even root can make folders in /proc."""
    with pytest.raises(UserError, match="--runs-dir"):
        RunDirectory.create("/proc/hvd_dqn", "E", "x")


def test_a_run_is_opened_again_with_its_configuration(tmp_path: Path) -> None:
    RunDirectory.create(str(tmp_path), "E", "x").write_config({"config": {"seed": 3}, "ranks": 2})
    directory = RunDirectory.open(str(tmp_path / "E" / "x"))
    assert directory.read_config() == {"seed": 3}
    assert json.loads((directory.path / CONFIG_FILE).read_text())["ranks"] == 2


def test_an_absent_or_foreign_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        RunDirectory.open(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"not a run directory.*config\.json and checkpoints/"):
        RunDirectory.open(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no such directory"):
        RunDirectory.open(str(tmp_path / "file"))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 3}', '{"config": [1]}', "null"])
def test_a_foreign_config_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(content)
    with pytest.raises(UserError, match="not the configuration of a run of this program"):
        RunDirectory.open(str(tmp_path)).read_config()


def test_starting_over_removes_what_never_came_to_a_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    directory = RunDirectory.of(str(tmp_path), "E", "x")
    script, replay = directory.path / "slurm" / "job.sbatch", directory.checkpoints / "replay" / "half"
    for path in (script, replay, directory.metrics, directory.tensorboard / "events"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    directory.start_over("")
    assert [path for path in directory.path.rglob("*") if path.is_file()] == [script]


def test_starting_over_leaves_a_run_with_a_checkpoint_alone(tmp_path: Path) -> None:
    directory = RunDirectory.of(str(tmp_path), "E", "x")
    assert newest_checkpoint(directory.checkpoints) is None
    for env_steps in ("000000000900", "000000001000"):
        (directory.checkpoints / env_steps).mkdir(parents=True)
        (directory.checkpoints / env_steps / "manifest.json").touch()
    (directory.checkpoints / "000000002000").mkdir()
    directory.metrics.touch()
    directory.start_over("")
    assert directory.metrics.exists()
    assert newest_checkpoint(directory.checkpoints) == 1000


def test_a_child_that_outlives_the_job_holds_no_lock(tmp_path: Path) -> None:
    """An environment may fork a process and leave it behind."""
    directory = RunDirectory(tmp_path)
    directory.lock()
    fork = multiprocessing.get_context("fork")
    alive, ended = fork.Event(), fork.Event()

    def live() -> None:
        alive.set()
        ended.wait()

    child = fork.Process(target=live)
    child.start()
    alive.wait()
    try:
        directory.unlock()
        RunDirectory(tmp_path).lock()
    finally:
        child.kill()
        child.join()


def test_paths_are_those_of_the_folder_in_which_the_job_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment may change the working folder before the run directory is made."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, resume in (("first", ""), ("first", "runs/CartPole-v1/first"), ("second", "auto")):
        handle = RunDirectoryHandle()
        monkeypatch.chdir("there")
        directory = handle.open(replace(Config(), {"name": name, "resume": resume}), SingleCommunicator())
        assert directory.path == tmp_path / "runs" / "CartPole-v1" / name
        directory.write_config({"config": {"env": "CartPole-v1"}})
        handle.close()
        monkeypatch.chdir(tmp_path)


def test_an_unlocked_directory_can_be_locked_again_by_the_same_process(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path), RunDirectory(tmp_path)
    first.lock()
    with pytest.raises(UserError, match="another job is using"):
        second.lock()
    first.unlock()
    second.lock()
    first.unlock()
    with pytest.raises(UserError, match="another job is using"):
        RunDirectory(tmp_path).lock()
    second.unlock()


def test_a_locked_directory_is_discarded_only_while_its_run_has_not_begun(tmp_path: Path) -> None:
    unbegun, begun = (RunDirectory.create(str(tmp_path), "E", name) for name in ("unbegun", "begun"))
    for directory in (unbegun, begun):
        directory.lock()
        directory.tensorboard.mkdir()
        directory.metrics.touch()
    begun.write_config({"config": {}})
    somebody_elses = RunDirectory(unbegun.path)
    somebody_elses.discard_unbegun()
    assert unbegun.path.is_dir()
    for directory in (unbegun, begun):
        directory.discard_unbegun()
        directory.unlock()
    assert [path.name for path in (tmp_path / "E").iterdir()] == ["begun"]


@pytest.mark.parametrize("field", ["backend", "transport", "commit_period"])
def test_a_run_of_an_older_version_is_refused_with_the_command_that_resumes_it(tmp_path: Path, field: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"config": {"env": "CartPole-v1", field: "auto"}}))
    with pytest.raises(UserError, match=r"git checkout e7dd1cb && make setup"):
        read_config_of(str(tmp_path))
