"""Checkpoints in an object store: a run lives on without its disk, as exactly as with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import GENERAL, launched, run, timeless_metrics
from persistent_ranks import PersistentRanks
from s3_server import BUCKET, SECRET, S3Server, s3_server

pytestmark = pytest.mark.parallel

RUN = (
    *("--total-env-steps", "6000", "--num-envs", "6", "--learning-starts", "300", "--train-period", "4"),
    *("--global-batch-size", "16", "--hidden-sizes", "16", "--replay-capacity", "1500", "--target-update-period", "50"),
    *("--log-period", "250", "--evaluation-period", "2000", "--evaluation-episodes", "3", "--keep-checkpoints", "2"),
    *("--final-evaluation-episodes", "3", "--checkpoint-period", "500", "--name", "run"),
    *("--stall-timeout-seconds", "100", *GENERAL),
)
LONG = (*RUN, "--total-env-steps", "100000000", "--evaluation-period", "0", "--checkpoint-period", "2000")
PREFIX = "some/where"
URL = f"s3://{BUCKET}/{PREFIX}"
FAILED = "could not be written"


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Yields a server for all tests."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server.log") as server:
        yield server


@pytest.fixture
def server(one_server: S3Server) -> S3Server:
    """Returns the server with nothing but an empty bucket in it."""
    one_server.reset()
    return one_server


def _manifests(names: list[str]) -> list[str]:
    return sorted(name for name in names if name.endswith("/manifest.json"))


def _assert_secret_nowhere(texts: list[str], folder: Path, server: S3Server) -> None:
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 4, "the run's lock, configuration, metrics, TensorBoard"
    for content in [*(text.encode() for text in texts), *files, server.log.read_bytes(), *server.objects().values()]:
        assert SECRET.encode() not in content


@pytest.mark.faults
def test_a_killed_run_whose_disk_is_gone_ends_where_it_would_have_ended(
    server: S3Server, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """The same hashes as a run with local checkpoints that nobody stopped; then on one rank."""
    persistent_ranks.run_well(2, *RUN, "--runs-dir", tmp_path / "local")
    local = tmp_path / "local" / "CartPole-v1" / "run"
    spot = tmp_path / "spot"
    arguments = (*RUN, "--runs-dir", spot, "--checkpoint-path", URL)
    with launched("mpirun", 2, *arguments, environ=server.environ) as job:
        job.wait_for("evaluation at env step 2,004")
        os.kill(job.rank_pid(1), signal.SIGKILL)
        killed = job.finish()
    assert killed.code != 0
    before = _manifests(server.names())
    assert int(Path(before[-1]).parent.name) < 6000
    assert not list(spot.rglob("checkpoints")), "nothing of the checkpoints is on the disk"
    shutil.rmtree(spot)

    resumed = persistent_ranks.run_well(2, "--resume", URL, environ=server.environ)
    assert "resumed from the checkpoint at env step" in resumed.output
    objects = server.objects()
    manifests = _manifests(list(objects))
    expected = sorted(local.glob("checkpoints/*/manifest.json"))
    assert [Path(name).parent.name for name in manifests] == [path.parent.name for path in expected], "retention"
    assert [json.loads(objects[name]) for name in manifests] == [json.loads(path.read_text()) for path in expected]
    named = {segment for name in manifests for segment in json.loads(objects[name])["segments"]}
    assert {name.partition("/replay/")[2] for name in objects if "/replay/" in name} == named
    assert timeless_metrics(spot / "CartPole-v1" / "run") == timeless_metrics(local)
    assert objects[f"{PREFIX}/metrics.jsonl"] == (spot / "CartPole-v1" / "run" / "metrics.jsonl").read_bytes()
    assert f"{PREFIX}/lease.json" not in objects
    _assert_secret_nowhere([killed.output, resumed.output], tmp_path, server)

    shutil.rmtree(spot)
    alone = persistent_ranks.run_well(1, "--resume", URL, "--total-env-steps", "6300", environ=server.environ)
    assert "resumed from the checkpoint at env step 6,000" in alone.output
    assert "the replay of 1,500 transitions on 2 rank(s) was resharded: 1,500 on 1" in alone.output
    assert (
        timeless_metrics(spot / "CartPole-v1" / "run")[: len(timeless_metrics(local)) - 1]
        == timeless_metrics(local)[:-1]
    )


def test_one_command_starts_a_run_and_goes_on_with_it_from_the_store(
    server: S3Server, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """What a scheduler of spot machines does: the same command again, on machines that know nothing of the run."""
    command = (*LONG, "--checkpoint-path", URL, "--resume", "auto")
    with launched("mpirun", 2, *command, "--runs-dir", tmp_path / "first", environ=server.environ) as job:
        job.wait_until(lambda: len(_manifests(server.names())) > 0)
        os.kill(job.rank_pid(0), signal.SIGKILL)
        job.finish()
    saved = int(_manifests(server.names())[-1].split("/")[-2])
    second = (*command, "--runs-dir", tmp_path / "second")
    goes_on = persistent_ranks.run_well(2, *second, "--total-env-steps", str(saved + 3000), environ=server.environ)
    assert f"resumed from the checkpoint at env step {saved:,}" in goes_on.output
    manifests = _manifests(server.names())
    again = persistent_ranks.run_well(1, *second, "--total-env-steps", str(saved + 3000), environ=server.environ)
    assert "Greedy evaluation of" in again.output
    assert len(_manifests(server.names())) == len(manifests)
    other = persistent_ranks.run(1, *second, "--env", "Acrobot-v1", environ=server.environ)
    assert other.code == 2, other.output
    assert f"{URL} was trained with another configuration: --env CartPole-v1, not Acrobot-v1" in other.output


@pytest.mark.faults
def test_a_store_that_is_gone_costs_checkpoints_until_it_is_back(
    server: S3Server, persistent_ranks: PersistentRanks, tmp_path: Path
) -> None:
    """Meanwhile a second job is refused."""
    arguments = (*LONG, "--runs-dir", tmp_path, "--checkpoint-path", URL)
    with launched("mpirun", 2, *arguments, environ=server.environ) as job:
        job.wait_until(lambda: len(_manifests(server.names())) > 1)
        second = persistent_ranks.run(1, "--resume", URL, "--name", "second", environ=server.environ)
        assert second.code == 2
        assert f"another job saves to {URL}" in second.output
        assert not list(tmp_path.glob("*/second")), "a run that was refused leaves no directory"
        server.door.shut()
        job.wait_for(FAILED)
        before, steps = job.output.count(FAILED), _steps(tmp_path)
        good = _manifests(server.names())
        job.wait_until(lambda: job.output.count(FAILED) >= before + 2)
        job.wait_until(lambda: _steps(tmp_path) > steps, what="training went on")
        assert "Could not connect" in job.output
        assert _manifests(server.names()) == good
        server.door.open()
        job.wait_until(lambda: _manifests(server.names())[-1] > good[-1])
        os.kill(job.rank_pid(0), signal.SIGUSR1)
        outcome = job.finish()
    assert outcome.code == 75, outcome.output
    assert f"or from anywhere {URL}" in outcome.output
    assert "Traceback" not in outcome.output
    assert not [name for name in server.names() if "lease" in name or "parts-" in name]
    _assert_secret_nowhere([outcome.output], tmp_path, server)


def _steps(folder: Path) -> int:
    (path,) = folder.glob("*/run/metrics.jsonl")
    return int(json.loads(path.read_text().rpartition("\n")[0].splitlines()[-1])["env_steps"])


REFUSED = {
    "credentials in the URL": (f"--checkpoint-path s3://identity:{SECRET}@{BUCKET}/run", "contains credentials"),
    "unknown scheme": ("--checkpoint-path s4://bucket/run", "s4:// is not supported"),
    "a path": ("--checkpoint-path /tmp/here", "give a URL such as s3://bucket/run"),
    "one process' memory": ("--checkpoint-path memory://run", "there are 2 ranks"),
    "no such bucket": ("--checkpoint-path s3://nobody/run", "s3://nobody/run: The specified bucket does not exist"),
    "nothing to resume": (f"--resume {URL}", f"--resume {URL}: not the checkpoint path of a run"),
    "extra missing": (f"--checkpoint-path {URL}", "s3:// needs the extra [s3]: make setup EXTRAS='atari s3'"),
    "access denied": (f"--checkpoint-path {URL}", f"{URL}: access denied"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_place_that_cannot_be_used_is_refused_with_one_message(name: str, server: S3Server, tmp_path: Path) -> None:
    """Before TensorFlow is imported: one process shows it, and two show what only two can get wrong."""
    arguments, says = REFUSED[name]
    if name == "access denied":
        server.deny_all()
    environ = server.environ
    if name == "extra missing":
        (tmp_path / "s3fs.py").write_text("raise ImportError('no s3fs here')")
        environ["PYTHONPATH"] = str(tmp_path)
    how, ranks = ("mpirun", 2) if name in ("one process' memory", "no such bucket") else ("python", 1)
    outcome = run(how, ranks, *arguments.split(), "--runs-dir", tmp_path / "runs", environ=environ)
    assert outcome.code == 2, outcome.output
    assert outcome.output.count(says) == 1, outcome.output
    assert "Traceback" not in outcome.output
    assert SECRET not in outcome.output
    assert not (tmp_path / "runs").exists()
