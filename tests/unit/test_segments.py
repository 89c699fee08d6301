"""Laws of the replay on disk: written once, checked on the way back, removed when nobody names it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_dqn.checkpoint import save
from hvd_dqn.checkpoint import segments as segments_module
from hvd_dqn.checkpoint.contents import Checkpoint
from hvd_dqn.checkpoint.files import sha256
from hvd_dqn.checkpoint.lease import NoLease
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.segments import Segment, SegmentWriter, decode, encode, read, remove_unnamed
from hvd_dqn.checkpoint.session import CheckpointSession
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.distributed.communicator import SingleCommunicator
from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.replay.base import Refill
from hvd_dqn.replay.ring import RingReplay
from hvd_dqn.replay.rows import Rows
from hvd_dqn.transition import Transition, TransitionForm

KINDS = {"vector": ((3,), np.float32), "image": ((8, 8, 4), np.uint8), "number": ((), np.int64)}


def _transitions(first: int, count: int, kind: str = "vector") -> Transition:
    shape, dtype = KINDS[kind]
    n = np.arange(first, first + count)
    s = (np.ones((count, *shape)) * n.reshape(-1, *(1 for _ in shape)) % 200).astype(dtype)
    r_t, discount_t = n.astype(np.float32), (n % 3 / 4).astype(np.float32)
    return Transition(s, (n % 5).astype(np.int32), r_t, discount_t, (s + 1).astype(dtype))


def _blank(kind: str = "vector") -> Transition:
    return Transition(*(column[:0] for column in _transitions(0, 1, kind)))


def _read(folder: Path, segments: list[Segment]) -> Transition:
    parts = [_blank(), *(read(folder, segment, _blank()).whole() for segment in segments)]
    return Transition(*map(np.concatenate, zip(*parts, strict=True)))


def _assert_equal(left: Transition, right: Transition) -> None:
    for name, a, b in zip(Transition._fields, left, right, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_transitions_go_there_and_back(kind: str, count: int) -> None:
    transitions = _transitions(7, count, kind)
    _assert_equal(decode(encode(Rows(transitions)), _blank(kind), count).whole(), transitions)


def test_images_that_change_little_take_a_fifth_or_less() -> None:
    frames = np.zeros((64, 84, 84, 4), np.uint8)
    for n in range(64):
        frames[n, n : n + 8, 40:44] = 255
    transitions = Transition(frames, *_transitions(0, 64)[1:4], np.roll(frames, -1, axis=0))
    assert len(encode(Rows(transitions))) < 2 * frames.nbytes / 5


def test_each_transition_is_written_once(tmp_path: Path) -> None:
    """Files are never touched again, and a checkpoint without news writes none."""
    writer = SegmentWriter(tmp_path, 1, 4)
    one = writer.write(Rows(_transitions(0, 10)), 0, oldest=0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zst")}
    two = writer.write(Rows(_transitions(10, 5)), 10, oldest=0)
    assert two[:1] == one
    assert writer.written == 15
    assert writer.write(Rows(_transitions(15, 0)), 15, oldest=0) == two
    assert [segment.count for segment in two] == [10, 5]
    assert all(segment.file.startswith("rank-00001-of-00004/") for segment in two)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(tmp_path.rglob("*.*"))) == 2
    _assert_equal(_read(tmp_path, two), _transitions(0, 15))


def test_a_large_replay_is_written_and_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_module, "PIECE_BYTES", 10 * Rows(_blank()).row_bytes + 1)
    writer = SegmentWriter(tmp_path, 0, 1)
    segments = writer.write(Rows(_transitions(0, 35)), 0, oldest=0)
    assert [(segment.first, segment.count) for segment in segments] == [(0, 10), (10, 10), (20, 10), (30, 5)]
    _assert_equal(_read(tmp_path, segments), _transitions(0, 35))


def _filled(replay: RingReplay, rows: int) -> None:
    replay.add(_wide(0, rows))


def _resharded(replay: RingReplay, rows: int) -> None:
    """As a resume on another number of ranks does it."""
    refill = Refill(replay)
    refill.begin(rows)
    for first in range(0, rows, 100):
        refill.put(np.arange(first, first + 100), _wide(first, 100))
    refill.finish()


def _wide(first: int, count: int) -> Transition:
    s = np.full((count, 16_000), 7, np.uint8)
    return Transition(s, *_transitions(first, count)[1:4], s)


@pytest.mark.parametrize("fill", [_filled, _resharded])
def test_a_save_of_a_large_replay_holds_what_may_be_copied_and_a_few_pieces(
    fill: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 MB, none of which is in a segment yet: 4 MB may be copied, and a piece has 1 MB."""
    replay = RingReplay(2000, TransitionForm((16_000,), np.dtype(np.uint8)), np.random.default_rng(0))
    fill(replay, 2500)
    for module in (save, segments_module):
        monkeypatch.setattr(module, "PIECE_BYTES", 10**6)
    monkeypatch.setattr(save, "MOST_COPIED_BYTES", 4 * 10**6)
    lock, communicator = NoLease(), SingleCommunicator()
    store = CheckpointStore(tmp_path, 1, lock.check)
    watchdog = Watchdog(0.0, 0, 1, tmp_path, communicator.abort)
    writer = SegmentWriter(store.replay_folder, 0, 1)
    session = CheckpointSession(communicator, watchdog, store, lock, writer, None)
    checkpoint = Checkpoint(1, None, {"online": np.zeros(1, np.float32)}, {"counters": {"env_steps": 1}}, [])
    tracemalloc.start(1)
    try:
        save.begin(
            session,
            1,
            lambda: checkpoint,
            lambda online: {"online": online},
            replay=replay,
            generators={},
            finished_episodes=[],
            open_episodes=None,
        )
        save.settle(session)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6 + 3e6
    (rank,) = store.newest_good()[0].ranks
    back = [read(store.replay_folder, segment, replay.empty()).whole().r_t for segment in rank.segments]
    np.testing.assert_array_equal(np.concatenate(back), np.arange(500, 2500))


def test_segments_that_the_replay_has_dropped_are_forgotten(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, 0, 1)
    for first in (0, 10, 20):
        segments = writer.write(Rows(_transitions(first, 10)), first, oldest=max(0, first - 5))
    assert [segment.first for segment in segments] == [10, 20]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 40))
def test_a_replay_saved_now_and_then_comes_back_slot_by_slot(batches: list[int], capacity: int) -> None:
    """Sampling looks at slots: the order of arrival alone would not do."""
    import tempfile

    def replay() -> RingReplay:
        return RingReplay(capacity, TransitionForm((3,), np.dtype(np.float32)), np.random.default_rng(4))

    with tempfile.TemporaryDirectory() as folder:
        kept, writer, number = replay(), SegmentWriter(Path(folder), 0, 1), 0
        segments: list[Segment] = []
        for count in batches:
            kept.add(_transitions(number, count))
            number += count
            first = max(writer.written, kept.added - len(kept))
            segments = writer.write(kept.rows(np.arange(first, kept.added)), first, kept.added - len(kept))
        held, back = _read(Path(folder), segments), replay()
        back.restore(Transition(*(column[len(column) - len(kept) :] for column in held)), kept.added)
    assert len(back) == len(kept)
    if len(kept):
        _assert_equal(back.sample(1, 50).transitions, kept.sample(1, 50).transitions)
    kept.add(_transitions(number, 3))
    back.add(_transitions(number, 3))
    _assert_equal(back.sample(1, 50).transitions, kept.sample(1, 50).transitions)


def test_segments_that_no_checkpoint_names_are_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    writer = SegmentWriter(store.replay_folder, 0, 1)
    for first in (0, 10, 20):
        segments = writer.write(Rows(_transitions(first, 10)), first, oldest=max(0, first - 5))
        _save(store, first + 10, segments)
    left = {str(path.relative_to(store.replay_folder)) for path in store.replay_folder.rglob("*.zst")}
    assert left == {segment.file for segment in segments}
    remove_unnamed(store.replay_folder, set())
    assert list(store.replay_folder.iterdir()) == []


def _save(store: CheckpointStore, env_steps: int, segments: list[Segment]) -> Path:
    stored = sum(segment.count for segment in segments)
    rank = RankState({}, env_steps, stored, max(1, stored), segments, [], None)
    vectors = {"online": np.zeros(3, np.float32)}
    return store.save(Checkpoint(env_steps, None, vectors, {"counters": {"env_steps": env_steps}}, [rank]), vectors)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [_flip_a_bit, _cut, Path.unlink])
def test_a_damaged_segment_is_named_and_the_checkpoint_before_it_is_used(damage: Any, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    writer = SegmentWriter(store.replay_folder, 0, 1)
    _save(store, 10, writer.write(Rows(_transitions(0, 10)), 0, oldest=0))
    segments = writer.write(Rows(_transitions(10, 10)), 10, oldest=0)
    _save(store, 20, segments)
    damage(store.replay_folder / segments[1].file)
    checkpoint, passed_over = store.newest_good()
    assert checkpoint.env_steps == 10
    assert Path(segments[1].file).name in passed_over[0]


def _three_checkpoints(folder: Path) -> tuple[CheckpointStore, list[Segment]]:
    """Returns a store of three checkpoints and the segments of the last: 10, 10 and 5 transitions, 22 of them held."""
    store = CheckpointStore(folder, keep=3)
    writer = SegmentWriter(store.replay_folder, 0, 1)
    for first, count in ((0, 10), (10, 10), (20, 5)):
        segments = writer.write(Rows(_transitions(first, count)), first, oldest=0)
        rank = RankState({}, first + count, min(22, first + count), 22, segments, [], None)
        vectors = {"online": np.zeros(3, np.float32)}
        state = {"counters": {"env_steps": first + count}}
        store.save(Checkpoint(first + count, None, vectors, state, [rank]), vectors)
    return store, segments


@pytest.mark.parametrize("damage", [_flip_a_bit, _cut, Path.unlink])
@pytest.mark.parametrize(("lost", "left"), [((0,), 15), ((1,), 12), ((0, 2), 10), ((0, 1, 2), 0)])
def test_a_damaged_segment_that_all_share_costs_its_transitions_if_that_is_asked_for(
    damage: Any, lost: tuple[int, ...], left: int, tmp_path: Path
) -> None:
    """Of 22 transitions, the oldest segment holds 7."""
    store, segments = _three_checkpoints(tmp_path)
    for place in lost:
        damage(store.replay_folder / segments[place].file)
    if 0 in lost:
        with pytest.raises(UserError, match=f"add --allow-missing-replay to resume from it without {22 - left} of its"):
            store.newest_good()
    checkpoint, passed_over = store.newest_good(allow_missing_replay=True)
    assert checkpoint.env_steps == 25
    assert f"lacks {22 - left} transitions" in passed_over[0]
    (rank,) = checkpoint.ranks
    assert (rank.stored, checkpoint.lost) == (left, 22 - left)
    held = _read(store.replay_folder, rank.segments)
    expected = [n for n in range(3, 25) if n // 10 not in lost]
    assert held.r_t[len(held.r_t) - rank.stored :].tolist() == expected
    assert RankState.from_json(json.loads(json.dumps(rank.to_json()))) == rank


def test_nothing_is_missing_where_nothing_is_damaged(tmp_path: Path) -> None:
    store, _ = _three_checkpoints(tmp_path)
    checkpoint, passed_over = store.newest_good(allow_missing_replay=True)
    assert (checkpoint.env_steps, checkpoint.lost, passed_over) == (25, 0, [])


@pytest.mark.parametrize("content", [b"", b'{"format": 1000}'])
def test_segments_stay_while_a_manifest_that_may_name_them_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    """A newer program's manifest, or one on a disk that is not quite there."""
    store, segments = _three_checkpoints(tmp_path)
    (tmp_path / f"{25:012d}" / "manifest.json").write_bytes(content)
    _save(store, 21, segments[:1])
    assert all((store.replay_folder / segment.file).exists() for segment in segments)


BOMB = zstandard.ZstdCompressor().compress(bytes(50_000_000))
WRONG = {
    "no zstd": b"nothing of the kind",
    "a pickle": pickle.dumps({"s_tm1": 1}),
    "a bomb": BOMB,
    "a bomb that hides its size": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(50_000_000)),
    "no safetensors": zstandard.ZstdCompressor().compress(b"nothing"),
    "another column": zstandard.ZstdCompressor().compress(safetensors.numpy.save({"x": np.zeros(3, np.float32)})),
    "other shapes": encode(Rows(_transitions(0, 3, "image"))),
    "fewer rows": encode(Rows(_transitions(0, 2))),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_segment_is_refused_in_words(name: str) -> None:
    """Even where its checksum is right, and without taking memory for it."""
    with pytest.raises(CheckpointError):
        decode(WRONG[name], _blank(), 3)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_noise_in_a_segment_is_an_error_or_nothing(noise: bytes, place: int) -> None:
    content = encode(Rows(_transitions(0, 20)))
    content = content[:place] + noise + content[place + len(noise) :]
    try:
        decoded = decode(content, _blank(), 20)
    except CheckpointError:
        return
    assert decoded.whole().r_t.shape == (20,)


GOOD = Segment(f"rank-00000-of-00001/{0:012d}-{sha256(b'x')}.zst", 0, 3, 1, sha256(b"x"))


@pytest.mark.parametrize(
    "changes",
    [{"file": "../../etc/passwd"}, {"file": "/etc/passwd"}, {"count": -1}, {"bytes": 1.5}, {"first": True}, {"new": 1}],
)
def test_a_manifests_segment_is_checked_before_it_is_touched(changes: dict[str, Any]) -> None:
    assert Segment.from_json(GOOD.to_json()) == GOOD
    with pytest.raises(CheckpointError, match="does not describe a segment"):
        Segment.from_json(GOOD.to_json() | changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from([field.name for field in dataclasses.fields(RankState)]))
def test_noise_in_a_ranks_state_is_an_error_or_nothing(noise: Any, field: str) -> None:
    good = RankState({}, 3, 3, 5, [GOOD], [], None).to_json()
    for record in (noise, good | {field: noise}):
        try:
            state = RankState.from_json(json.loads(json.dumps(record)))
        except CheckpointError:
            continue
        assert 0 <= state.stored <= state.added
