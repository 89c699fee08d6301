"""Laws of trackers: they receive what the files have, a resume continues their run, and none of them ends a job."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hvd_dqn.config import Config, field_names
from hvd_dqn.errors import UserError
from hvd_dqn.run import trackers
from hvd_dqn.run.trackers import Tracking, WandbTracker, check_packages, scalars_of, tracked_ids
from hvd_dqn.training.open_records import hyper_parameters

from .whole_runs import QUICK, run


class _Tracker:
    """Keeps what it receives, and fails or waits where it is asked to."""

    def __init__(self, fails: str = "", waits: threading.Event | None = None) -> None:
        self.received: list[tuple[int, dict[str, float]]] = []
        self.known: list[str | None] = []
        self._fails, self._waits = fails, waits

    def start(self, name: str, config: Mapping[str, Any], known: str | None) -> str:
        if self._waits is not None:
            self._waits.wait(60.0)
        self.known.append(known)
        self._fail("start")
        return "id-1"

    def log(self, env_steps: int, scalars: Mapping[str, float]) -> None:
        self._fail("log")
        self.received.append((env_steps, dict(scalars)))

    def finish(self) -> None:
        self._fail("finish")

    def _fail(self, where: str) -> None:
        if where == self._fails:
            raise ConnectionError("the server\nis gone")


def _track(tracker: _Tracker, folder: Path, steps: int = 3) -> list[str]:
    """Writes some records; returns the warnings."""
    warnings: list[str] = []
    tracking = Tracking(tracker, "mlflow", folder, {}, warnings.append)
    for step in range(steps):
        tracking.take({"kind": "training", "env_steps": step, "loss": 0.5, "mean_return": None})
    tracking.close()
    return warnings


def test_a_tracker_receives_every_record_and_its_id_is_kept(tmp_path: Path) -> None:
    tracker = _Tracker()
    assert _track(tracker, tmp_path) == []
    assert tracker.received == [(step, {"training/loss": 0.5}) for step in range(3)]
    assert tracked_ids(tmp_path) == {"mlflow": "id-1"}
    _track(tracker, tmp_path)
    assert tracker.known == [None, "id-1"]


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_reported_once_and_ends_nothing(where: str, tmp_path: Path) -> None:
    (warning,) = _track(_Tracker(fails=where), tmp_path)
    assert warning == "--track mlflow: the server is gone; training continues without it"


def test_a_tracker_that_does_not_answer_delays_the_end_by_a_limited_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_FINISH_SECONDS", 0.2)
    waits = threading.Event()
    (warning,) = _track(_Tracker(waits=waits), tmp_path)
    assert warning == "--track mlflow has not received everything within 0.2 s"
    waits.set()


def test_only_finite_numbers_are_sent() -> None:
    record = {"kind": "training", "env_steps": 5, "loss": float("nan"), "mean_q": None, "epsilon": 1, "x": True}
    assert scalars_of(record) == {"training/epsilon": 1.0}


def test_a_file_of_ids_that_is_damaged_starts_a_new_tracked_run(tmp_path: Path) -> None:
    for content in ("{", "[1]", '{"mlflow": 3}'):
        (tmp_path / "tracked.json").write_text(content)
        assert tracked_ids(tmp_path) == {}


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(UserError, match=r'no_such_tracker is not installed: make setup EXTRAS="no_such_tracker"'):
        check_packages(["no_such_tracker"])


def test_a_run_without_the_package_is_refused_and_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    ended = run(*QUICK, "--track", "wandb", "--runs-dir", tmp_path, "--name", "a")
    assert ended.code == 2
    assert 'make setup EXTRAS="wandb"' in ended.printed
    assert not (tmp_path / "CartPole-v1" / "a").exists()


def test_hyper_parameters_have_the_names_of_fields_and_no_places() -> None:
    values = hyper_parameters(Config(), 2)
    assert values.keys() - set(field_names()) == {"ranks"}
    assert {"gamma", "seed", "total_env_steps", "env", "hidden_sizes"} <= values.keys()
    assert not {"runs_dir", "name", "progress", "time_limit"} & values.keys()


@pytest.mark.slow
def test_wandb_records_offline_and_a_second_job_continues_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(trackers, "_FINISH_SECONDS", 120.0)
    for step in (100, 200):
        warnings: list[str] = []
        tracker = WandbTracker(tmp_path, warnings.append)
        tracking = Tracking(tracker, "wandb", tmp_path, {"gamma": 0.9}, warnings.append)
        tracking.take({"kind": "training", "env_steps": step, "loss": 0.5})
        tracking.close()
        assert warnings == []
        time.sleep(1.1)  # W&B names its folders by the second
    (own,) = {path.name.rpartition("-")[2] for path in tmp_path.glob("wandb/offline-run-*")}
    assert tracked_ids(tmp_path) == {"wandb": own}
    found = []
    for file in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        for record in _wandb_records(file.read_bytes()):
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            if "training/loss" in items:
                found.append((items["env_steps"], items["training/loss"]))
    assert found == [("100", "0.5"), ("200", "0.5")]


def _wandb_records(content: bytes) -> Iterator[Any]:
    """Yields the records of W&B's file: 7 bytes, then for each a checksum [4], its length [2], its kind [1], itself."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    assert len(content) < 2**15, "one block, so that no record is split"
    position = 7
    while position < len(content):
        start = position + 7
        position = start + int.from_bytes(content[position + 4 : position + 6], "little")
        record = messages.Record()
        record.ParseFromString(content[start:position])
        yield record


@pytest.fixture
def mlflow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yields the address of a real server on this machine."""
    pytest.importorskip("mlflow.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = (
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/db",
        "--artifacts-destination",
        str(tmp_path / "artifacts"),
    )
    start = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", address.partition(":")[2]]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([*start, "--workers", "1", *options], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 240.0
        while True:
            try:
                with urllib.request.urlopen(f"http://{address}/health", timeout=5.0):
                    break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(60.0)


@pytest.mark.slow
def test_mlflow_has_a_whole_run_and_its_resume(
    mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_FINISH_SECONDS", 240.0)
    common = (*QUICK, "--track", "mlflow", "--runs-dir", tmp_path)
    assert run(*common, "--total-env-steps", "100", "--name", "first").code == 0
    directory = tmp_path / "CartPole-v1" / "first"
    assert run(*common, "--resume", directory, "--total-env-steps", "200").code == 0
    client = pytest.importorskip("mlflow.tracking").MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    (found,) = client.search_runs([experiment.experiment_id])
    assert tracked_ids(directory) == {"mlflow": found.info.run_id}
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params["gamma"] == "0.99"
    history = client.get_metric_history(found.info.run_id, "training/epsilon")
    assert sorted({metric.step for metric in history}) == [50, 100, 150, 200]
    assert len(client.get_metric_history(found.info.run_id, "final_evaluation/mean_return")) == 2
