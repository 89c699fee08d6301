"""Whatever lies in a checkpoint's files, reading it ends soon, in little memory, with the checkpoint or a clear error.

HVD_DQN_FUZZ_SECONDS is the time of each test here; `make test-faults` gives a minute, and new examples each time.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
import zstandard
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from hvd_dqn.checkpoint.contents import Checkpoint
from hvd_dqn.checkpoint.files import sha256
from hvd_dqn.checkpoint.listing import MANIFEST
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.segments import SegmentWriter, decode, encode, read
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.envs.open_episode import CollectorState, OpenEpisode
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.files import remove
from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition

from .permissions import modes_apply
from .whole_runs import QUICK, contents, run

pytestmark = pytest.mark.faults

LONG = "HVD_DQN_FUZZ_SECONDS" in os.environ
SECONDS = float(os.environ.get("HVD_DQN_FUZZ_SECONDS", "1"))
PROFILE = settings(
    max_examples=100, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck)
)
SECONDS_PER_EXAMPLE = 5.0
BYTES_PER_EXAMPLE = 50_000_000
ROWS = 40
VECTORS = {"online": np.arange(200, dtype=np.float32), "target": np.ones(200, np.float32)}


def _transitions(first: int, count: int) -> Transition:
    n = np.arange(first, first + count)
    s = np.repeat(n[:, None], 4, axis=1).astype(np.float32)
    return Transition(s, (n % 2).astype(np.int32), n.astype(np.float32), (n % 3 / 4).astype(np.float32), s + 1)


BLANK = Transition(*(column[:0] for column in _transitions(0, 1)))


EPISODES = CollectorState(
    [OpenEpisode(3, 2.5, 4, False, np.ones(3, np.float32), np.arange(4, dtype=np.uint8), {"own": (1, b"2")})],
    np.random.default_rng(5).bit_generator.state,
)


def _state() -> dict[str, Any]:
    return {"counters": {"env_steps": 2 * ROWS}, "recent_episodes": {}, "averages": {}, "best_score": 3.5}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with one checkpoint of two ranks, with two segments each."""
    store = CheckpointStore(tmp_path_factory.mktemp("original"), keep=3)
    ranks = []
    for rank in (0, 1):
        writer = SegmentWriter(store.replay_folder, rank, 2)
        writer.write(Rows(_transitions(0, 25)), 0, 0)
        segments = writer.write(Rows(_transitions(25, ROWS - 25)), 25, 0)
        generators = {"policy": np.random.default_rng(rank).bit_generator.state}
        ranks.append(RankState(generators, ROWS, ROWS, ROWS, segments, [[7, 1.5, 9]], EPISODES))
    store.save(Checkpoint(2 * ROWS, 3.5, VECTORS, _state(), ranks), {"kernel": VECTORS["online"]})
    return store.folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """Returns a copy to spoil."""
    return shutil.copytree(original, tmp_path / "copy")


def _fuzz(example: Callable[[st.DataObject], None]) -> None:
    """Runs examples until the time is up; each must be quick and small."""
    count = 0

    def guarded(data: st.DataObject) -> None:
        nonlocal count
        count += 1
        tracemalloc.clear_traces()
        tracemalloc.reset_peak()
        before, start = tracemalloc.get_traced_memory()[0], time.process_time()
        example(data)
        assert time.process_time() - start < SECONDS_PER_EXAMPLE  # of the processor: the machine may be busy
        assert tracemalloc.get_traced_memory()[1] - before < BYTES_PER_EXAMPLE

    VALUES.validate()  # Hypothesis builds a table of all characters at its first use, in half a minute where traced
    deadline, rounds = time.monotonic() + SECONDS, 0
    tracemalloc.start(1)
    try:
        while rounds == 0 or time.monotonic() < deadline:
            test = PROFILE(hypothesis.given(st.data())(guarded))
            hypothesis.seed(rounds if "HVD_DQN_FUZZ_SECONDS" not in os.environ else time.time_ns())(test)()
            rounds += 1
    finally:
        tracemalloc.stop()
    print(f"{count:,} examples")


def _mutated(data: st.DataObject, content: bytes) -> bytes:
    """Draws bytes near these: some flipped, cut out, put in, repeated, or the end cut off."""
    mutable = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(mutable) - 1)))
        length = data.draw(st.integers(0, 60))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "repeat", "end"]))
        if how == "flip" and mutable:
            mutable[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del mutable[place : place + length]
        elif how == "insert":
            mutable[place:place] = data.draw(st.binary(max_size=60))
        elif how == "overwrite":
            noise = data.draw(st.binary(max_size=60))
            mutable[place : place + len(noise)] = noise
        elif how == "repeat":
            mutable[place:place] = mutable[place : place + length] * 3
        else:
            del mutable[place:]
    return bytes(mutable)


NUMBERS = st.sampled_from([-1, 0, 1, 39, 41, 2**31, 2**63 - 1, 2**64, 10**30, -(10**30), 1e308, 0.5])
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.just(float("nan")) | st.just("../../etc/passwd")
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _changed(data: st.DataObject, value: Any) -> Any:
    """Draws a JSON value near this one: some of its parts are others, gone, or doubled."""
    changed = json.loads(json.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(_places(changed))
        if not places:
            return data.draw(VALUES)
        *path, key = data.draw(st.sampled_from(places))
        parent = changed
        for step in path:
            parent = parent[step]
        how = data.draw(st.sampled_from(["replace", "remove", "double", "add"]))
        if how == "remove":
            del parent[key]
        elif how == "double" and isinstance(parent, list):
            parent.append(parent[key])
        elif how == "add" and isinstance(parent, dict):
            parent[data.draw(st.text(max_size=8))] = data.draw(VALUES)
        else:
            parent[key] = data.draw(VALUES)
    return changed


def _checkpoint_folder(copy: Path) -> Path:
    return copy / f"{2 * ROWS:012d}"


def _sign(copy: Path, manifest: dict[str, Any], **contents: bytes) -> None:
    """Lets a manifest vouch for these contents and for itself, as somebody who wants to do harm would."""
    folder = _checkpoint_folder(copy)
    manifest = {name: value for name, value in manifest.items() if name != "sha256"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        manifest["files"] |= {name: {"bytes": len(content), "sha256": sha256(content)}}
    digest = sha256(json.dumps(manifest, sort_keys=True).encode())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": digest}))


def _read_all(copy: Path, allow_missing_replay: bool = False) -> Checkpoint | None:
    """Reads a checkpoint with its replay as a job does; None where that ends with a clear error."""
    store = CheckpointStore(copy, keep=3)
    try:
        checkpoint, _ = store.newest_good(allow_missing_replay)
        ranks = [RankState.from_json(json.loads(json.dumps(rank.to_json()))) for rank in checkpoint.ranks]
        for rank in ranks:
            held = [read(store.replay_folder, segment, BLANK) for segment in rank.segments]
            assert sum(len(part.whole().a_tm1) for part in held) >= rank.stored
    except (UserError, CheckpointError) as error:
        said = str(error)
    else:
        return checkpoint
    assert 0 < len(said) < 4000
    return None


def _assert_original(checkpoint: Checkpoint) -> None:
    assert (checkpoint.env_steps, checkpoint.score, checkpoint.state) == (2 * ROWS, 3.5, _state())
    for name, vector in VECTORS.items():
        np.testing.assert_array_equal(checkpoint.learner[name], vector)


def test_the_original_can_be_read(copy: Path) -> None:
    checkpoint = _read_all(copy)
    assert checkpoint is not None
    _assert_original(checkpoint)


def test_mutated_bytes_of_any_file_are_an_error_or_change_nothing(copy: Path) -> None:
    originals = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    assert len(originals) == 8

    def example(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(list(originals)))
        path.write_bytes(_mutated(data, originals[path]))
        try:
            checkpoint = _read_all(copy, data.draw(st.booleans()))
            if checkpoint is not None:
                _assert_original(checkpoint)
        finally:
            path.write_bytes(originals[path])

    _fuzz(example)


def test_a_manifest_that_vouches_for_other_facts_is_an_error_or_readable(copy: Path) -> None:
    manifest = json.loads((_checkpoint_folder(copy) / MANIFEST).read_text())

    def example(data: st.DataObject) -> None:
        changed = _changed(data, manifest)
        if isinstance(changed, dict):
            _sign(copy, changed)
        else:
            (_checkpoint_folder(copy) / MANIFEST).write_text(json.dumps(changed))
        _read_all(copy)
        store = CheckpointStore(copy, keep=3)
        store.best()

    _fuzz(example)


@pytest.mark.parametrize("name", ["state.json", "learner.safetensors"])
def test_mutated_bytes_that_the_manifest_vouches_for_are_an_error_or_readable(name: str, copy: Path) -> None:
    manifest = json.loads((_checkpoint_folder(copy) / MANIFEST).read_text())
    content = (_checkpoint_folder(copy) / name).read_bytes()

    def example(data: st.DataObject) -> None:
        _sign(copy, manifest, **{name: _mutated(data, content)})
        _read_all(copy, data.draw(st.booleans()))

    _fuzz(example)


def test_a_state_that_the_manifest_vouches_for_is_an_error_or_readable(copy: Path) -> None:
    """Counts, shares and segments that contradict one another, or are none."""
    manifest = json.loads((_checkpoint_folder(copy) / MANIFEST).read_text())
    state = json.loads((_checkpoint_folder(copy) / "state.json").read_text())

    def example(data: st.DataObject) -> None:
        _sign(copy, manifest, **{"state.json": json.dumps(_changed(data, state)).encode()})
        _read_all(copy, data.draw(st.booleans()))

    _fuzz(example)


def test_a_segment_of_anything_is_an_error_or_transitions() -> None:
    """Mutated before or after it is packed, with any count."""
    packed = encode(Rows(_transitions(0, ROWS)))
    plain = zstandard.ZstdDecompressor().decompress(packed)

    def example(data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            content = _mutated(data, packed)
        else:
            content = zstandard.ZstdCompressor().compress(_mutated(data, plain))
        count = data.draw(st.sampled_from([ROWS, 0, 1, 2**31, 2**62, 10**30]))
        try:
            decoded = decode(content, BLANK, count)
        except CheckpointError:
            return
        assert decoded.whole().r_t.shape == (count,)

    _fuzz(example)


BOMB = 400_000_000


def test_a_segment_that_unpacks_to_far_more_than_it_should_takes_no_memory() -> None:
    """Zeros, as such or as a tensor of zeros with the right columns beside it."""
    columns = {key: np.ascontiguousarray(value) for key, value in _transitions(0, ROWS)._asdict().items()}
    bombs = [
        zstandard.ZstdCompressor(level=1).compress(bytes(BOMB)),
        zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(BOMB)),
        zstandard.ZstdCompressor(level=1).compress(
            safetensors.numpy.save(columns | {"zeros": np.zeros(BOMB // 4, np.float32)})
        ),
    ]
    tracemalloc.start(1)
    try:
        for bomb in bombs:
            with pytest.raises(CheckpointError):
                decode(bomb, BLANK, ROWS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def _put(how: str, path: Path, outside: Path) -> None:
    """Puts something else in the place of a file or folder."""
    if how == "unreadable":
        path.chmod(0)
        return
    if how == "link":
        path.rename(outside / "moved")
        path.symlink_to(outside / "moved")
        return
    content = path.read_bytes() if path.is_file() else b""
    remove(path)
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()


def _newest_good(run_directory: Path) -> int:
    """Returns the env steps of the newest checkpoint that is whole, 0 without one; root reads everything."""
    try:
        return CheckpointStore(run_directory / "checkpoints", keep=9).newest_good()[0].env_steps
    except UserError:
        return 0


def test_a_run_whose_files_are_replaced_by_anything_resumes_or_is_refused_and_loses_no_good_checkpoint(
    tmp_path: Path,
) -> None:
    """Without a traceback (whole_runs fails), a hang, another exit code, or a write outside."""
    whole = tmp_path / "CartPole-v1" / "whole"
    assert run(*QUICK, "--runs-dir", tmp_path, "--name", "whole", "--total-env-steps", "150").code == 0
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*"))
    names = [name for name in names if "tensorboard" not in name]  # written by TensorBoard
    deadline, number = time.monotonic() + SECONDS, 0

    def example(data: st.DataObject) -> None:
        nonlocal number
        number += 1
        folder, outside = tmp_path / f"copy {number}", tmp_path / f"outside {number}"
        copy = shutil.copytree(whole, folder / "CartPole-v1" / "a")
        outside.mkdir()
        for _ in range(data.draw(st.integers(1, 2))):
            path = copy / data.draw(st.sampled_from(names))
            how = data.draw(st.sampled_from(["unreadable", "link", "cut", "pipe", "folder", "gone"]))
            if path.exists() and path.parent.resolve() == path.parent and not (outside / "moved").exists():
                _put(how, path, outside)
        good_before = _newest_good(copy)
        before = contents(outside)
        try:
            with modes_apply():
                auto = data.draw(st.booleans())
                resume = ("--resume", "auto", "--name", "a") if auto else ("--resume", str(copy))
                ended = run(*resume, "--runs-dir", folder, "--total-env-steps", "200", "--keep-checkpoints", "9")
        finally:
            for path in (copy, *copy.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755)
        assert ended.code in (0, 2), ended.printed
        assert contents(outside) == before
        assert _newest_good(copy) >= good_before, ended.printed
        shutil.rmtree(folder)

    rounds = 0
    while rounds == 0 or time.monotonic() < deadline:
        test = settings(PROFILE, max_examples=4, phases=[Phase.generate])(hypothesis.given(st.data())(example))
        hypothesis.seed(time.time_ns() if LONG else rounds)(test)()
        rounds += 1
