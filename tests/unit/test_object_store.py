"""Laws of checkpoints outside the run directory: the same in a folder and in an object store."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hvd_dqn.checkpoint import storage as object_store
from hvd_dqn.checkpoint.contents import Checkpoint
from hvd_dqn.checkpoint.files import list_files, read_bytes, read_verified, remove, sha256, write_bytes
from hvd_dqn.checkpoint.lease import LEASE_FILE, RenewedLease
from hvd_dqn.checkpoint.listing import MANIFEST
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.segments import SegmentWriter, read
from hvd_dqn.checkpoint.storage import Location, ObjectPath, open_location
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.errors import CheckpointError, StoreError, UserError
from hvd_dqn.locations import check_url
from hvd_dqn.replay.rows import Rows
from hvd_dqn.run.config_file import CONFIG_FILE
from hvd_dqn.run.directory import RunDirectory, check_checkpoint_path, read_config_of
from hvd_dqn.transition import Transition

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    """Yields the address of a server that speaks Google Cloud Storage's language, with a bucket in it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}"]
    options = ["--in-memory", "--default-bucket=bucket"]
    server = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["file", "memory", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path, google: str, monkeypatch: pytest.MonkeyPatch) -> Location:
    """Returns an empty place; S3's own laws are in tests/parallel/test_parallel_remote.py."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google)
    urls = {"file": f"file://{tmp_path}", "memory": _memory(), "gs": f"gs://bucket/{uuid.uuid4().hex}"}
    return open_location(urls[request.param], "--checkpoint-path")


def _memory() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


def _transitions(first: int, count: int) -> Transition:
    n = np.arange(first, first + count)
    s = np.tile(n[:, None], (1, 3)).astype(np.float32)
    return Transition(s, n.astype(np.int32), n.astype(np.float32), np.full(count, 0.9, np.float32), s)


def _save(store: CheckpointStore, writer: SegmentWriter, env_steps: int, score: float | None = None) -> None:
    """Adds ten transitions, of which the replay holds the last fifteen, and saves."""
    segments = writer.write(Rows(_transitions(env_steps - 10, 10)), env_steps - 10, oldest=max(0, env_steps - 15))
    rank = RankState({}, env_steps, min(15, env_steps), 15, segments, [], None)
    vectors = {"online": np.full(3, env_steps, np.float32)}
    store.save(Checkpoint(env_steps, score, vectors, {"counters": {"env_steps": env_steps}}, [rank]), vectors)


def _names(place: Location, level: int = 0) -> list[str]:
    """Returns the names that lie on a level below a place."""
    found = (name.split("/") for name in list_files(place))
    return sorted({parts[level] for parts in found if len(parts) > level})


def test_files_go_there_and_back_and_away(place: Location) -> None:
    path = place / "a" / "b.bin"
    with pytest.raises(FileNotFoundError):
        read_bytes(path, 10)
    assert list_files(place) in ([], ["/"], ["./"])
    for content in (b"", b"x" * 100_000, b"shorter"):
        write_bytes(path, content)
        assert read_bytes(path, len(content)) == content
        facts = {"bytes": len(content), "sha256": sha256(content)}
        assert read_verified(place / "a" / "b.bin", facts, 100_000) == content
    with pytest.raises(CheckpointError):
        read_bytes(path, len(content) - 1)
    assert path.name == "b.bin"
    remove(path)
    remove(path)
    with pytest.raises(FileNotFoundError):
        read_bytes(path, 10)


def test_names_are_found_at_all_levels(place: Location) -> None:
    names = ["1/manifest.json", "2/manifest.json", "2/state.json", "replay/rank-0/a.zst", "top.json"]
    for name in names:
        write_bytes(place / name, b"x")
    assert list_files(place) == names
    assert list_files(place / "2") == ["manifest.json", "state.json"]
    assert list_files(place / "none") == []
    remove(place / "2")
    remove(place / "none")
    assert list_files(place) == ["1/manifest.json", "replay/rank-0/a.zst", "top.json"]


def test_a_checkpoint_comes_back_with_its_replay(place: Location) -> None:
    store = CheckpointStore(place, keep=3)  # type: ignore[type-var]
    writer = SegmentWriter(store.replay_folder, 0, 1)
    for env_steps in (10, 20):
        _save(store, writer, env_steps)
    checkpoint, passed_over = CheckpointStore(place, keep=3).newest_good()  # type: ignore[type-var]
    assert (checkpoint.env_steps, passed_over) == (20, [])
    np.testing.assert_array_equal(checkpoint.learner["online"], np.full(3, 20, np.float32))
    held = [
        read(store.replay_folder, segment, _transitions(0, 0)).columns.r_t for segment in checkpoint.ranks[0].segments
    ]
    np.testing.assert_array_equal(np.concatenate(held), np.arange(20, dtype=np.float32))


def test_the_last_n_and_the_best_are_kept_and_only_their_segments(place: Location) -> None:
    store = CheckpointStore(place, keep=2)  # type: ignore[type-var]
    writer = SegmentWriter(store.replay_folder, 0, 1)
    for env_steps, score in ((10, 1.0), (20, 9.0), (30, 2.0), (40, None), (50, 3.0)):
        _save(store, writer, env_steps, score)
    steps = [f"{n:012d}" for n in (20, 40, 50)]
    assert _names(place) == [*steps, "replay"]
    named = {
        name.rpartition("/")[2]
        for step in steps
        for name in json.loads(read_bytes(place / step / MANIFEST, 10**6))["segments"]
    }
    assert set(_names(place / "replay", 1)) == named
    assert [int(name[:12]) for name in sorted(named)] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_a_damaged_checkpoint_is_passed_over(place: Location, content: bytes | None) -> None:
    store = CheckpointStore(place, keep=3)  # type: ignore[type-var]
    writer = SegmentWriter(store.replay_folder, 0, 1)
    for env_steps in (10, 20):
        _save(store, writer, env_steps)
    path = place / f"{20:012d}" / "state.json"
    remove(path) if content is None else write_bytes(path, content)
    checkpoint, passed_over = store.newest_good()
    assert checkpoint.env_steps == 10
    assert "state.json" in passed_over[0]


def test_a_manifest_is_written_only_after_the_lease_was_checked(place: Location) -> None:
    held = True

    def check() -> None:
        if not held:
            raise UserError("another job has it")

    store = CheckpointStore(place, 1, check)  # type: ignore[type-var]
    writer = SegmentWriter(store.replay_folder, 0, 1)
    _save(store, writer, 10)
    held = False
    with pytest.raises(UserError, match="another job"):
        _save(store, writer, 20)
    assert store.newest_good()[0].env_steps == 10
    assert len(_names(place / "replay", 1)) == 2, "nothing has been removed"


def _lease(place: Location) -> RenewedLease:
    return RenewedLease(place, renewal_seconds=0.1, poll_seconds=0.05)


def _until_free(lease: RenewedLease) -> float:
    start = time.monotonic()
    while not lease.is_free():
        assert time.monotonic() - start < 30.0
    return time.monotonic() - start


@pytest.fixture
def holder(place: Location) -> Iterator[RenewedLease]:
    lease = _lease(place)
    assert lease.is_free()
    lease.acquire()
    yield lease
    lease.release()


def _rewrite(place: Location, **changes: object) -> None:
    path = place / LEASE_FILE
    write_bytes(path, json.dumps(json.loads(read_bytes(path, 10**6)) | changes).encode())


def test_a_second_job_is_refused_while_the_first_lives(place: Location, holder: RenewedLease) -> None:
    with pytest.raises(UserError, match=r"another job saves to .*process \d+ on .*--checkpoint-path"):
        _until_free(_lease(place))
    holder.check()
    holder.release()
    assert _lease(place).is_free(), "an ended job leaves no lease"


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_notices(place: Location) -> None:
    holder = RenewedLease(place, renewal_seconds=1000.0, poll_seconds=0.05)  # as good as cut off
    holder.acquire()
    second = _lease(place)
    assert _until_free(second) >= 0.29
    second.acquire()
    with pytest.raises(UserError, match=r"another job has taken over"):
        holder.check()
    holder.release()
    second.check()
    second.release()
    assert LEASE_FILE not in list_files(place)


def test_the_lease_of_a_process_that_ended_on_this_machine_is_free_at_once(place: Location) -> None:
    holder = _lease(place)
    holder._write()
    ended = subprocess.Popen(["true"])
    ended.wait()
    _rewrite(place, process=ended.pid, machine="another")
    assert not _lease(place).is_free()
    holder._write()
    _rewrite(place, process=ended.pid)
    assert _lease(place).is_free()


def test_of_two_jobs_that_come_at_once_one_stays(place: Location) -> None:
    one, two = _lease(place), _lease(place)
    assert one.is_free()
    assert two.is_free()
    one._write()
    two.acquire()
    with pytest.raises(UserError, match="another job has taken"):
        one.check()
    two.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"token": 3, "process": "x"}'])
def test_a_damaged_lease_is_treated_as_any_other(place: Location, content: bytes) -> None:
    write_bytes(place / LEASE_FILE, content)
    assert _until_free(_lease(place)) >= 0.29


@pytest.mark.parametrize(
    "url",
    [
        *("s3://id:topsecret@bucket/run", "s3://topsecret@bucket/run", "s3://bucket/run?secret=topsecret"),
        *("gs://user:topsecret@bucket/run", "az://account:topsecret@container/run", "s3://bucket/run#topsecret"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    for refuse in (
        lambda: check_url(url, "--checkpoint-path"),
        lambda: open_location(url, "--checkpoint-path"),
        lambda: check_checkpoint_path(url, False, 1),
        lambda: read_config_of(url),
    ):
        with pytest.raises(UserError, match="credentials in the environment") as caught:
            refuse()
        assert "topsecret" not in str(caught.value)


def test_an_azure_url_may_name_its_account() -> None:
    check_url("abfs://container@account.dfs.core.windows.net/run", "--checkpoint-path")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("runs/here", "give a URL such as s3://bucket/run"),
        ("file://runs/here", "three slashes"),
        ("s3://", "add a path, such as"),
        ("s4://bucket/run", "s4:// is not supported"),
        ("oss://bucket/run", "needs fsspec and its package"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_the_remedy(url: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_location(url, "--checkpoint-path")


@pytest.mark.parametrize(
    ("scheme", "package", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gs"), ("abfs", "adlfs", "az")]
)
@pytest.mark.parametrize("absent", ["fsspec", "its own"])
def test_a_missing_extra_is_named(scheme: str, package: str, extra: str, absent: str) -> None:
    """A fresh Python in which the package, or fsspec, cannot be imported."""
    code = (
        f"import sys; sys.modules[{package if absent == 'its own' else absent!r}] = None\n"
        "from hvd_dqn.checkpoint.storage import open_location\n"
        f"open_location('{scheme}://bucket/run', '--checkpoint-path')"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"--checkpoint-path {scheme}://bucket/run: {scheme}:// needs the extra [{extra}]" in answer.stderr


def test_google_and_azure_are_found_and_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that can be said of them without their services."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    for url, kind in (("gs://bucket/run", "GCSFileSystem"), ("az://container/run", "AzureBlobFileSystem")):
        path = open_location(url, "--checkpoint-path")
        assert isinstance(path, ObjectPath)
        assert kind in [base.__name__ for base in type(path._filesystem).__mro__]
        assert path._path == url.partition("://")[2]
        for method in ("info", "cat_file", "pipe_file", "rm_file", "find"):
            assert callable(getattr(path._filesystem, f"_{method}"))


def test_azure_without_an_account_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCOUNT_NAME", "ACCOUNT_KEY", "CONNECTION_STRING"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    with pytest.raises(UserError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_location("az://container/run", "--checkpoint-path")


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name, value in (
            ("ACCESS_KEY_ID", "id"),
            ("SECRET_ACCESS_KEY", "topsecret"),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(object_store, "CALL_SECONDS", 1.0)
        yield port


def test_a_store_that_never_answers_costs_a_bounded_time(silent_server: int) -> None:
    path = open_location("s3://bucket/run", "--checkpoint-path")
    start = time.monotonic()
    with pytest.raises(StoreError, match="no answer in time"):
        write_bytes(path / "x", b"x")
    assert time.monotonic() - start < 10.0


def test_a_store_that_is_gone_is_an_error_in_words(silent_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(object_store, "CALL_SECONDS", 20.0)
    path = open_location("s3://bucket/run", "--checkpoint-path")
    with pytest.raises(
        StoreError, match=r"^s3://bucket/run/x: EndpointConnectionError: Could not connect to the endpoint"
    ):
        read_bytes(path / "x", 10)


def test_an_error_that_names_an_endpoint_with_credentials_loses_them() -> None:
    error = ConnectionError("Could not connect to http://user:topsecret@store:80/bucket/run")
    assert object_store._in_words(error, "s3") == "ConnectionError: Could not connect to http://...@store:80/bucket/run"


def test_a_run_is_found_again_by_its_checkpoint_path(tmp_path: Path) -> None:
    url = _memory()
    with pytest.raises(UserError, match=r"no config\.json"):
        read_config_of(url)
    write_bytes(open_location(url, "x") / CONFIG_FILE, b'{"config": {"seed": 3, "checkpoint_path": "old"}}')
    assert read_config_of(url) == {"seed": 3, "checkpoint_path": url}
    with pytest.raises(UserError, match=f"already holds a run: resume it with --resume {url}"):
        check_checkpoint_path(url, False, 1)
    check_checkpoint_path(url, True, 1)
    with pytest.raises(UserError, match="there are 2 ranks"):
        check_checkpoint_path(url, True, 2)


def test_a_run_directory_is_used_again_by_the_run_that_saves_to_the_same_place(tmp_path: Path) -> None:
    directory = RunDirectory.create(str(tmp_path), "E", "x")
    directory.write_config({"config": {"checkpoint_path": "s3://b/run"}})
    assert RunDirectory.create(str(tmp_path), "E", "x", "s3://b/run").path == directory.path
    for other in ("s3://b/other", ""):
        with pytest.raises(UserError, match="exists already"):
            RunDirectory.create(str(tmp_path), "E", "x", other)


def test_without_a_url_nothing_of_fsspec_is_loaded() -> None:
    code = "import sys, train, hvd_dqn.checkpoint.store, hvd_dqn.checkpoint.lease; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) & {"fsspec", "s3fs", "gcsfs", "adlfs", "asyncio"}
