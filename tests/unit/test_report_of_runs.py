"""Laws of pages of real runs: what training writes is what a page reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvd_dqn.cli import report as report_verb
from hvd_dqn.errors import EXIT_DONE
from hvd_dqn.report.charts import sections
from hvd_dqn.report.groups import grouped
from hvd_dqn.report.reading import WALL_SECONDS, RunData, read_run

from .report_runs import DEFAULTS, PRESET_LIST
from .whole_runs import QUICK, run

EVALUATED = ("--evaluation-period", "100", "--evaluation-episodes", "2")


def _read(folder: Path) -> RunData:
    return read_run(str(folder), DEFAULTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of 200 env steps."""
    arguments = ("--name", "a", "--total-env-steps", "200", *EVALUATED, "--runs-dir", tmp_path)
    assert run(*QUICK, *arguments).code == EXIT_DONE
    return tmp_path / "CartPole-v1" / "a"


def test_a_run_has_all_charts_of_one_rank(folder: Path) -> None:
    drawn = sections(grouped([_read(folder)], PRESET_LIST))
    assert {title: [chart.key for chart in charts] for title, charts in drawn.items()} == {
        "Learning": ["return", "return-time", "training-return", "epsilon"],
        "Action values": ["estimate", "q"],
        "Updates": ["loss", "td-error"],
        "Speed": ["speed"],
    }


def test_an_evaluation_records_what_it_predicts_and_what_follows(folder: Path) -> None:
    """CartPole pays 1 per step, so that the discounted return is less than the return."""
    (first, *_) = _read(folder).evaluations
    assert 0 < first["discounted_return"] < first["mean_return"]
    assert isinstance(first["start_value"], float)


def test_a_resumed_run_ends_later_and_its_wall_time_is_that_of_both_jobs(folder: Path) -> None:
    before = _read(folder)
    assert run("--resume", folder, "--total-env-steps", "400").code == EXIT_DONE
    after = _read(folder)
    assert before.latest is not None
    assert after.latest is not None
    assert after.latest["env_steps"] == 400
    assert after.latest[WALL_SECONDS] > before.latest[WALL_SECONDS]
    assert (before.state, after.state) == ("finished", "finished")
    assert after.last is not None
    assert after.checkpoints[400] == after.last["mean_return"]


def test_the_machine_of_a_run_is_on_its_page(folder: Path) -> None:
    machine = json.loads((folder / "config.json").read_text())["machine"]
    assert set(machine) == {"system", "processor", "cores", "memory", "gpus"}
    assert all(isinstance(value, str) and value for value in machine.values())
    assert report_verb.main([str(folder)]) == EXIT_DONE
    assert machine["system"] in (folder / "report.html").read_text()
