"""Laws of hvd-dqn doctor: what evidence means, and what its report looks like."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hvd_dqn.cli.doctor import write_report
from hvd_dqn.cli.examination import Evidence
from hvd_dqn.cli.findings import Finding, judge
from hvd_dqn.distributed.facts import host_facts
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.measure import clock_bounds

COMMAND = Path(sys.executable).with_name("hvd-dqn")


def _rank(rank: int, **facts: Any) -> dict[str, Any]:
    """Returns the facts of a rank of a healthy job on two hosts of two ranks and two cores each."""
    healthy = {
        "rank": rank,
        "host": f"node{rank // 2}",
        "launcher": "mpirun",
        "python": "/env/bin/python",
        "revision": "abc",
        "code": "0123",
        "versions": {"python": "3.11.7", "horovod": "0.28.1"},
        "system": "Linux 6",
        "processor": "EPYC",
        "cores": 2,
        "cores_of_host": 2,
        "affinity": [0, 1],
        "own_cores": [rank % 2],
        "threads": 1,
        "cpu_quota": None,
        "load": 0.5,
        "memory": 2**34,
        "shm_free": 2**30,
        "shm_total": 2**30,
        "gpus": [],
        "tensorflow_gpus": 0,
        "mpirun": "/env/bin/mpirun",
        "variables": {},
        "horovod": {"MPI": True, "Gloo": True, "NCCL": False},
        "mpi": "Open MPI v4.1.8",
        "native_problem": "",
        "device": "CPU",
        "no_device": "",
        "folder": "/shared/runs",
        "folder_free": 2**40,
    }
    return healthy | facts


def _evidence(facts_of_rank_3: dict[str, Any] | None = None, **fields: Any) -> Evidence:
    ranks = [_rank(0), _rank(1), _rank(2), _rank(3, **(facts_of_rank_3 or {}))]
    times: list[dict[str, Any]] = [
        {"by": "MPI", "bytes": size, "seconds": seconds, "wrong": []} for size, seconds in ((4, 1e-5), (16e6, 0.02))
    ]
    known: dict[str, Any] = {
        "ranks": ranks,
        "controller": "MPI",
        "folder_problem": "",
        "clocks": [(0.0, 0.0)] * 4,
        "allreduces": times,
    }
    return Evidence(Launch(size=4, under_launcher=True, under_mpi=True), **(known | fields))


def _problems(evidence: Evidence) -> list[Finding]:
    found = [finding for finding in judge(evidence) if finding.mark != "ok"]
    assert all(finding.remedy for finding in found), "each problem says what to change"
    return found


def test_a_healthy_job_has_no_problems_and_shows_every_subject() -> None:
    evidence = _evidence()
    assert _problems(evidence) == []
    shown = {finding.name: finding.text for finding in judge(evidence)}
    assert {"hvd-dqn", "packages", "ranks", "horovod", "MPI", "GPUs", "cores", "memory", "/dev/shm"} <= shown.keys()
    assert shown["ranks"] == "2 on node0, 2 on node1; launcher: mpirun; controller: MPI"
    # A ring of four sends 1.5 times the vector: 24 MB in 20 ms.
    assert "16,000,000.0 bytes in 20.000 ms; 1,200 MB/s" in shown["allreduce by MPI"]


@pytest.mark.parametrize(
    ("facts", "mark", "name", "text"),
    [
        ({"code": "4567"}, "fault", "hvd-dqn", "node1 (rank 3): revision abc, code 4567"),
        ({"versions": {"python": "3.11.7", "horovod": "0.28"}}, "fault", "horovod", "node1 (rank 3): 0.28"),
        ({"horovod_error": "ImportError: symbol"}, "fault", "horovod", "node1 (rank 3): ImportError: symbol"),
        ({"mpi_error": "ImportError"}, "warning", "MPI", "node1 (rank 3): ImportError"),
        ({"native_problem": "other sources"}, "warning", "native learner", "other sources"),
        ({"no_device": "2 ranks and 1 GPU"}, "fault", "GPUs", "none"),
        ({"gpus": ["H200"]}, "warning", "GPUs", "node1 (rank 3): H200; TensorFlow sees 0"),
        ({"gpus": ["H200"], "tensorflow_gpus": 1}, "warning", "horovod", "built with MPI, Gloo"),
    ],
)
def test_what_differs_on_one_rank_is_named_with_its_host(
    facts: dict[str, Any], mark: str, name: str, text: str
) -> None:
    (found,) = _problems(_evidence(facts))
    assert (found.mark, found.name) == (mark, name)
    assert text in found.text


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"cpu_quota": 1.0}, "cores"),
        ({"affinity": [0], "own_cores": [0]}, "cores"),
        ({"load": 9.0}, "cores"),
        ({"memory": 2**30}, "memory"),
        ({"shm_free": 2**24}, "/dev/shm"),
    ],
)
def test_what_a_host_lacks_for_its_ranks_is_a_warning(facts: dict[str, Any], name: str) -> None:
    evidence = _evidence()
    evidence.ranks = [_rank(0), _rank(1), _rank(2, **facts), _rank(3, **facts)]
    assert [(found.mark, found.name) for found in _problems(evidence)] == [("warning", name)]


@pytest.mark.parametrize(
    ("fields", "mark", "name"),
    [
        ({"folder_problem": "node1 does not see the folder"}, "fault", "folder"),
        ({"clocks": [(0.0, 0.0), (0.0, 0.0), (1.5, 1.6), (1.5, 1.6)]}, "warning", "clocks"),
        ({"clocks": [(0.0, 0.0), (0.0, 0.0), (-1.6, -1.5), (0.0, 0.0)]}, "warning", "clocks"),
        ({"controller": "Gloo"}, "warning", "ranks"),
        ({"problem": "RuntimeError: no", "doing": "joining the other ranks"}, "fault", "joining the other ranks"),
        ({"ended": "it ended with SIGABRT", "doing": "starting Horovod"}, "fault", "starting Horovod"),
    ],
)
def test_what_lies_between_the_ranks_is_judged(fields: dict[str, Any], mark: str, name: str) -> None:
    assert [(found.mark, found.name) for found in _problems(_evidence(**fields))] == [(mark, name)]


@pytest.mark.parametrize(
    ("seconds", "wrong", "mark"),
    [((5e-3, 0.02), [], "warning"), ((1e-5, 2.0), [], "warning"), ((1e-5, 0.02), [2], "fault")],
)
def test_slow_or_wrong_sums_are_problems(seconds: tuple[float, float], wrong: list[int], mark: str) -> None:
    sizes = (4, 16_000_000)
    times: list[dict[str, Any]] = [
        {"by": "MPI", "bytes": b, "seconds": s, "wrong": wrong} for b, s in zip(sizes, seconds, strict=True)
    ]
    assert [found.mark for found in _problems(_evidence(allreduces=times))] == [mark]


def test_an_examination_that_ended_at_once_is_still_reported() -> None:
    (found,) = judge(Evidence(Launch(), ended="no progress within 1 s"))
    assert (found.mark, found.name, found.text) == ("fault", "starting", "no progress within 1 s")


def test_variables_that_matter_are_shown_and_secrets_are_not() -> None:
    environ = {
        "NCCL_DEBUG": "INFO",
        "OMP_NUM_THREADS": "2",
        "HOROVOD_SECRET_KEY": "s",
        "TF_TOKEN": "s",
        "HOROVOD_RANK": "0",
        "OMPI_MCA_orte_app_num": "0",
        "HOME": "/root",
    }
    assert host_facts(Launch(), environ)["variables"] == {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "2"}


def test_clocks_are_bounded_by_what_was_read_around_barriers() -> None:
    """Rank 1's clock is 5 s ahead: it enters at 10.2 and leaves at 10.4; then it enters at 20.0 and leaves at 20.2."""
    marks = [[(10.0, 10.3), (20.1, 20.2)], [(15.2, 15.4), (25.0, 25.2)]]
    (low, high) = clock_bounds(marks)[1]
    assert low == pytest.approx(4.9)  # 15.2 - 10.3
    assert high == pytest.approx(5.1)  # 25.2 - 20.1
    assert clock_bounds(marks)[0][0] <= 0.0 <= clock_bounds(marks)[0][1]


def _written(encoding: str, *, colours: bool) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    write_report([Finding("ok", "a", "b"), Finding("fault", "cc", "d", "e")], stream, colours=colours)
    return raw.getvalue().decode(encoding)


def test_a_report_has_a_mark_per_line_remedies_and_a_verdict() -> None:
    assert _written("utf-8", colours=False) == (
        "✓ a   b\n✗ cc  d\n      what to change: e\n1 fault(s), 0 warning(s): training cannot run like this.\n"
    )
    assert _written("latin-1", colours=False).startswith("+ a   b\nX cc  d\n")
    assert "\033[31m✗\033[0m" in _written("utf-8", colours=True)


def test_a_mistake_is_refused() -> None:
    done = subprocess.run([COMMAND, "doctor", "--wait-seconds", "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--wait-seconds is 0.0: give a positive number" in done.stderr


def test_one_process_is_examined_and_the_report_is_also_json(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "doctor", "--json", "--folder", tmp_path / "absent"], capture_output=True, text=True, check=False
    )
    answer = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [found["mark"] for found in answer["findings"] if found["name"] in ("horovod", "folder")] == ["ok", "ok"]
    (rank,) = answer["evidence"]["ranks"]
    assert rank["horovod"]["MPI"] is True
    assert rank["folder"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "message", "code"),
    [("horovod", "No module named 'horovod.tensorflow'", 0), ("tensorflow", "import of tensorflow halted", 2)],
)
def test_a_broken_package_is_reported_not_raised(package: str, message: str, code: int, tmp_path: Path) -> None:
    """One rank needs no Horovod."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None")
    environ = {"PYTHONPATH": str(tmp_path), "PATH": str(COMMAND.parent), "HOME": str(tmp_path)}
    done = subprocess.run([COMMAND, "doctor"], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert message in done.stdout
    assert "what to change:" in done.stdout
