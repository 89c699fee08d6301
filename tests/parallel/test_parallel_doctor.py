"""hvd-dqn doctor examines real ranks under real launchers, and ends in time when one of them does not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import PROGRAMS, ROOT, command, environment_of_ranks, run

pytestmark = pytest.mark.parallel

COMMAND = Path(sys.executable).with_name("hvd-dqn")


@pytest.mark.parametrize(
    ("how", "controller"), [("mpirun", "MPI"), pytest.param("horovodrun --gloo", "Gloo", marks=pytest.mark.slow)]
)
def test_two_ranks_are_examined_together(how: str, controller: str, tmp_path: Path) -> None:
    outcome = run(how, 2, "doctor", "--json", "--folder", tmp_path, program=COMMAND)
    assert outcome.code == 0, outcome.output
    (line,) = [line for line in outcome.output.splitlines() if '"findings"' in line]
    answer: dict[str, Any] = json.loads(line[line.index("{") :])
    evidence = answer["evidence"]
    assert [rank["rank"] for rank in evidence["ranks"]] == [0, 1]
    assert evidence["controller"] == controller
    assert evidence["folder_problem"] == ""
    assert len(evidence["clocks"]) == 2
    assert {(entry["by"], entry["bytes"]) for entry in evidence["allreduces"]} == {
        (by, size) for by in {"MPI", "Horovod"} & {controller, "Horovod"} for size in (4, 68_000, 16_000_000)
    }
    assert all(entry["wrong"] == [] for entry in evidence["allreduces"])
    clocks = next(found for found in answer["findings"] if found["name"] == "clocks")
    assert clocks["mark"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_one_rank_alone_is_a_fault_on_all(tmp_path: Path) -> None:
    """Each rank runs in a folder of its own, as on hosts without a shared file system."""
    outcome = run("mpirun", 2, tmp_path, program=PROGRAMS / "doctor_in_own_folder.py")
    assert outcome.code == 2, outcome.output
    assert "does not see the folder" in outcome.output
    assert "give a folder that all ranks share" in outcome.output


@pytest.mark.slow
def test_a_rank_that_never_joins_ends_the_examination_with_a_report() -> None:
    """Rank 1 sleeps, as a lost host would. Rank 0 reports what it has found and where it waited."""
    outcome = run("mpirun", 2, "40", program=PROGRAMS / "doctor_without_rank_1.py", seconds=240.0)
    assert outcome.code != 0, outcome.output
    assert "no progress within 40 s" in outcome.output
    assert "memory" in outcome.output
    assert "training cannot run like this" in outcome.output


def test_the_report_has_no_colours_in_a_file(tmp_path: Path) -> None:
    with (tmp_path / "report").open("w") as report:
        start = command("mpirun", 2, COMMAND, "doctor")
        subprocess.run(start, cwd=ROOT, env=environment_of_ranks(), stdout=report, check=True)
    assert "\033" not in (tmp_path / "report").read_text()
    assert "training can run" in (tmp_path / "report").read_text()
    assert os.path.getsize(tmp_path / "report") > 500
