"""Laws of what a page reads of a run: whatever state the run is in, and never more than was written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hvd_dqn.errors import UserError
from hvd_dqn.report.reading import WALL_SECONDS, RunData, read_run
from hvd_dqn.run.directory import RunDirectory

from .report_runs import DEFAULTS, evaluation, final, training, write_run


def _read(folder: Path) -> RunData:
    return read_run(str(folder), DEFAULTS)


def test_last_and_best_are_told_apart_and_the_newest_of_equals_is_the_best(tmp_path: Path) -> None:
    scores = {100: 5.0, 200: 9.0, 300: 9.0, 400: 2.0}
    run = _read(write_run(tmp_path / "a", [evaluation(*pair) for pair in scores.items()]))
    assert run.best is not None
    assert run.last is not None
    assert (run.best["env_steps"], run.best["mean_return"]) == (300, 9.0)
    assert (run.last["env_steps"], run.last["mean_return"]) == (400, 2.0)


def test_a_line_that_is_cut_or_foreign_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [training(100), evaluation(100, 1.0)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('[]\n\n{"kind": "training"}\nnull\n' + json.dumps(training(200))[:-20])
    run = _read(folder)
    assert [record["env_steps"] for record in run.training] == [100]
    assert len(run.evaluations) == 1


def test_wall_time_adds_up_over_the_jobs_of_a_resumed_run(tmp_path: Path) -> None:
    """Three jobs: seconds 4, 10; then 3, 8; then 1."""
    seconds = [4.0, 10.0, 3.0, 8.0, 1.0]
    records = [training(100 * i, seconds=s) for i, s in enumerate(seconds, 1)]
    run = _read(write_run(tmp_path / "a", records))
    assert [record[WALL_SECONDS] for record in run.training] == [4.0, 10.0, 13.0, 18.0, 19.0]


def test_values_that_do_not_exist_leave_no_point(tmp_path: Path) -> None:
    records = [training(100, loss=None), training(200, loss=4.0), training(300, loss=5.0)]
    env_steps, seconds, loss = _read(write_run(tmp_path / "a", records)).column("loss")
    assert env_steps.tolist() == [200.0, 300.0]
    assert seconds.tolist() == [0.2, 0.3]
    assert loss.tolist() == [4.0, 5.0]
    assert [len(part) for part in _read(write_run(tmp_path / "b", records)).column("absent")] == [0, 0, 0]


def test_a_run_that_has_written_nothing_yet_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [])
    for _ in range(2):
        run = _read(folder)
        assert (run.final, run.best, run.last, run.latest, run.state) == (None, None, None, None, "unfinished")
        (folder / "metrics.jsonl").unlink(missing_ok=True)


def test_the_final_evaluation_of_a_run_that_was_resumed_after_it_is_none(tmp_path: Path) -> None:
    ended = [training(100), final(100, 3.0)]
    assert _read(write_run(tmp_path / "a", ended)).state == "finished"
    resumed = _read(write_run(tmp_path / "b", [*ended, training(200)]))
    assert resumed.final is None
    assert resumed.state == "unfinished"


def test_a_run_is_running_while_a_job_has_its_lock(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [training(100)])
    directory = RunDirectory(folder)
    directory.lock()
    assert _read(folder).state == "running"
    with pytest.raises(UserError, match="another job is using"):
        RunDirectory(folder).lock()
    directory.unlock()
    assert _read(folder).state == "unfinished"
    RunDirectory(folder).lock()


def test_a_run_of_an_older_version_has_the_defaults_of_fields_it_lacks(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [])
    about = json.loads((folder / "config.json").read_text())
    del about["config"]["n_step"], about["machine"]
    (folder / "config.json").write_text(json.dumps(about))
    assert _read(folder).config["n_step"] == 1


def test_a_place_that_is_no_run_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        _read(tmp_path / "absent")
    with pytest.raises(UserError, match=r"give the folder that contains config\.json"):
        _read(tmp_path)
    folder = write_run(tmp_path / "a", [])
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read"):
        _read(folder)


def test_a_checkpoint_path_is_read_like_a_run_directory(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [training(100), evaluation(100, 1.0), final(100, 3.0)])
    run = read_run(f"file://{folder}", DEFAULTS)
    assert run.state == "finished"
    assert run.latest == _read(folder).latest


def test_the_newest_film_is_found(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", [])
    assert _read(folder).film is None
    (folder / "videos").mkdir()
    for name in ("b.mp4", "a.gif", "notes.txt"):
        (folder / "videos" / name).write_bytes(b"x")
    ages = {"b.mp4": 100, "a.gif": 200, "notes.txt": 300}
    for name, when in ages.items():
        os.utime(folder / "videos" / name, (when, when))
    film = _read(folder).film
    assert film is not None
    assert film.name == "a.gif"


def test_columns_are_numbers(tmp_path: Path) -> None:
    run = _read(write_run(tmp_path / "a", [training(100, loss=1)]))
    assert all(part.dtype == np.float64 for part in run.column("loss"))
