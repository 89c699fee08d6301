"""Laws of checkpoints: whole or absent, the newest good one wins, nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_dqn.checkpoint import contents as checkpoint_module
from hvd_dqn.checkpoint.contents import Checkpoint
from hvd_dqn.checkpoint.files import sha256, write_bytes
from hvd_dqn.checkpoint.listing import MANIFEST
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.store import CheckpointStore
from hvd_dqn.errors import UserError

FILES = ["model.safetensors", "learner.safetensors", "state.json", MANIFEST]
WEIGHTS = {"dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "dense/bias": np.ones(3, np.float32)}


def _checkpoint(env_steps: int, score: float | None = None) -> Checkpoint:
    return Checkpoint(
        env_steps,
        score,
        {"online": np.arange(9, dtype=np.float32) + env_steps, "optimizer/mean": np.zeros(9, np.float32)},
        {"counters": {"env_steps": env_steps}, "best_score": score},
        [RankState({}, 0, 0, 1, [], [], None)],
    )


def _save(store: CheckpointStore, env_steps: int, score: float | None = None) -> Path:
    return store.save(_checkpoint(env_steps, score), WEIGHTS)


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def _assert_is(checkpoint: Checkpoint | None, env_steps: int) -> None:
    assert checkpoint is not None
    expected = _checkpoint(env_steps, checkpoint.score)
    assert checkpoint.env_steps == env_steps
    assert checkpoint.state == expected.state
    assert checkpoint.learner.keys() == expected.learner.keys()
    for name, vector in expected.learner.items():
        np.testing.assert_array_equal(checkpoint.learner[name], vector)
        assert checkpoint.learner[name].dtype == vector.dtype


def _best_score(store: CheckpointStore) -> float | None:
    best, _ = store.best()
    return None if best is None else best.score


def _rewrite_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    del manifest["sha256"]
    digest = sha256(json.dumps(manifest, sort_keys=True).encode())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": digest}))


def _bless(folder: Path, name: str) -> None:
    """Makes the manifest vouch for whatever a file holds now."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    content = (folder / name).read_bytes()
    _rewrite_manifest(folder, files=files | {name: {"bytes": len(content), "sha256": sha256(content)}})


def test_a_checkpoint_goes_there_and_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    folder = _save(store, 4000, 12.5)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    checkpoint, passed_over = CheckpointStore(tmp_path / "checkpoints", keep=3).newest_good()
    _assert_is(checkpoint, 4000)
    assert checkpoint.score == 12.5
    assert passed_over == []


def test_other_programs_find_the_weights_by_layer(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    weights = load_file(_save(CheckpointStore(tmp_path, keep=3), 1) / "model.safetensors")
    assert weights.keys() == WEIGHTS.keys()
    for name, values in WEIGHTS.items():
        np.testing.assert_array_equal(weights[name], values)


def test_the_newest_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=10)
    for env_steps in (999, 10_000, 2_000):
        _save(store, env_steps)
    _assert_is(store.newest_good()[0], 10_000)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_is_a_checkpoint_only_once_its_manifest_is_there(tmp_path: Path, name: str) -> None:
    """A crash between any two files leaves a folder without a manifest: it does not exist for anyone."""
    store = CheckpointStore(tmp_path, keep=3)
    _save(store, 1000)
    folder = _save(store, 2000, 5.0)
    for later in FILES[FILES.index(name) :]:
        (folder / later).unlink()
    checkpoint, passed_over = store.newest_good()
    _assert_is(checkpoint, 1000)
    (line,) = passed_over
    assert line.endswith(f"{folder} is incomplete: it has no manifest.json")
    assert store.best()[0] is None


def _spoil_writing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes the writing of one file fail, as a kill or a full disk would."""
    write = checkpoint_module.write_bytes

    def spoilt(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError("spoilt")
        write(path, content)

    monkeypatch.setattr(checkpoint_module, "write_bytes", spoilt)
    monkeypatch.setattr(checkpoint_module, "write_json", lambda path, value: spoilt(path, b"{}"))


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No manifest must have been written before a file that fails."""
    for name in FILES[:-1]:
        store = CheckpointStore(tmp_path / name, keep=3)
        _save(store, 1000)
        with monkeypatch.context() as patch:
            _spoil_writing(patch, name)
            with pytest.raises(OSError, match="spoilt"):
                _save(store, 2000)
        assert not (tmp_path / name / f"{2000:012d}" / MANIFEST).exists()
        _assert_is(store.newest_good()[0], 1000)


def test_a_file_that_cannot_be_written_leaves_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "file" / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"directory|not empty"):
        write_bytes(tmp_path / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", FILES)
def test_a_step_saved_again_stays_a_checkpoint_until_the_new_one_is_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    _save(store, 1000, 1.0)
    with monkeypatch.context() as patch:
        _spoil_writing(patch, name)
        with pytest.raises(OSError, match="spoilt"):
            _save(store, 1000, 2.0)
    assert store.newest_good()[0].score == 1.0
    for again in (2.0, 3.0, 4.0):
        _save(store, 1000, again)
        checkpoint, passed_over = store.newest_good()
        assert (checkpoint.score, passed_over) == (again, [])
    assert len(list(tmp_path.glob(f"*/{MANIFEST}"))) == 1
    _save(store, 2000)
    _assert_is(store.newest_good()[0], 2000)


def test_of_a_step_saved_twice_the_later_one_counts(tmp_path: Path) -> None:
    """A kill between the new manifest and the removal of the old one leaves both; the tenth is after the ninth."""
    store = CheckpointStore(tmp_path, keep=3)
    for again in range(11):
        folder = _save(store, 1000, float(again))
        shutil.copytree(folder, tmp_path / f"kept {again}")
    shutil.rmtree(tmp_path / "000000001000-10")
    (tmp_path / "kept 9").rename(tmp_path / "000000001000-9")
    (tmp_path / "kept 10").rename(tmp_path / "000000001000-10")
    assert store.newest_good()[0].score == 10.0


def test_a_step_saved_again_without_a_score_does_not_cost_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    _save(store, 1000, 9.0)
    _save(store, 1000)
    assert _best_score(store) == 9.0
    assert store.newest_good()[0].score is None


def test_what_a_kill_left_half_written_is_cleared_away_by_the_next_checkpoint(tmp_path: Path) -> None:
    """Temporary files of a process that is gone, and a folder that never became a checkpoint; a newer one stays."""
    store = CheckpointStore(tmp_path, keep=3)
    left = [
        tmp_path / f"{1000:012d}" / "learner.safetensors",
        tmp_path / f"{2000:012d}" / ".state.json.77.tmp",
        store.replay_folder / "rank-00000-of-00001" / f".{'0' * 12}-{'a' * 64}.zst.77.tmp",
    ]
    newer = tmp_path / f"{3000:012d}" / "learner.safetensors"
    for path in (*left, newer):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    _save(store, 2000)
    assert not any(path.exists() for path in left)
    assert newer.exists()
    assert not store.replay_folder.joinpath("rank-00000-of-00001").exists()


def test_no_temporary_file_stays_behind(tmp_path: Path) -> None:
    folder = _save(CheckpointStore(tmp_path, keep=3), 1)
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def test_the_last_n_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for env_steps, score in ((1, 10.0), (2, 50.0), (3, None), (4, 20.0), (5, None), (6, 30.0)):
        _save(store, env_steps, score)
    assert _steps(tmp_path) == [2, 5, 6]
    assert _best_score(store) == 50.0
    _assert_is(store.best()[0], 2)
    _save(store, 7, 60.0)
    assert _steps(tmp_path) == [6, 7]


def test_the_newest_of_equally_good_checkpoints_is_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for env_steps in (1, 2, 3):
        _save(store, env_steps, 500.0)
    _save(store, 4, 499.0)
    assert _steps(tmp_path) == [3, 4]
    _assert_is(store.best()[0], 3)


def test_negative_scores_are_compared_too(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    for env_steps, score in ((1, -200.0), (2, -90.0), (3, None), (4, -110.0)):
        _save(store, env_steps, score)
    assert _best_score(store) == -90.0


def test_without_scores_there_is_no_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    assert store.best() == (None, [])
    _save(store, 1)
    assert store.best() == (None, [])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, _empty, Path.unlink])
@pytest.mark.parametrize("name", FILES[:-1])
def test_a_damaged_checkpoint_is_passed_over_with_a_line_that_names_the_file(
    tmp_path: Path, name: str, damage: Any
) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    _save(store, 1000, 1.0)
    folder = _save(store, 2000, 9.0)
    damage(folder / name)
    checkpoint, passed_over = store.newest_good()
    _assert_is(checkpoint, 1000)
    (line,) = passed_over
    assert str(folder) in line
    assert name in line
    best, instead_of = store.best()
    _assert_is(best, 1000)
    assert instead_of == passed_over


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"score": 9.0', b'"score": 8.0'), (b'"env_steps": 2000', b'"env_steps": 2001'), (b'"bytes": ', b'"bytes": 1')],
)
def test_a_manifest_that_still_is_json_is_found_damaged_by_its_own_checksum(
    old: bytes, new: bytes, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    _save(store, 1000, 1.0)
    manifest = _save(store, 2000, 9.0) / MANIFEST
    assert old in manifest.read_bytes()
    manifest.write_bytes(manifest.read_bytes().replace(old, new, 1))
    checkpoint, passed_over = store.newest_good()
    _assert_is(checkpoint, 1000)
    assert "manifest.json is damaged: its checksum does not match" in passed_over[0]


def test_every_bit_of_a_manifest_counts_or_changes_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    manifest = _save(store, 2000, 9.0) / MANIFEST
    content = manifest.read_bytes()
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        manifest.write_bytes(bytes(flipped))
        try:
            checkpoint, _ = store.newest_good()
        except UserError:
            continue
        _assert_is(checkpoint, 2000)
        assert checkpoint.score == 9.0


def test_a_manifest_of_another_step_or_another_run_is_passed_over(tmp_path: Path) -> None:
    store, other = (CheckpointStore(tmp_path / name, keep=3) for name in ("this", "other"))
    folders = [_save(store, env_steps) for env_steps in (1000, 2000, 3000)]
    foreign = other.save(replace(_checkpoint(3000), state={"counters": {}}), WEIGHTS)
    shutil.copy(folders[0] / MANIFEST, folders[1] / MANIFEST)
    shutil.copy(foreign / MANIFEST, folders[2] / MANIFEST)
    checkpoint, passed_over = store.newest_good()
    _assert_is(checkpoint, 1000)
    assert "state.json" in passed_over[0]
    assert "belongs to env step 1,000" in passed_over[1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b'{"format": "a"}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_manifest_is_passed_over(tmp_path: Path, content: bytes) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    _save(store, 1000, 1.0)
    folder = _save(store, 2000, 9.0)
    (folder / MANIFEST).write_bytes(content)
    checkpoint, passed_over = store.newest_good()
    _assert_is(checkpoint, 1000)
    assert "manifest" in passed_over[0]
    assert _best_score(store) == 1.0


def test_several_damaged_checkpoints_each_have_their_line_newest_first(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    folders = [_save(store, env_steps) for env_steps in (1, 2, 3)]
    _truncate(folders[2] / "state.json")
    _flip_a_bit(folders[1] / "learner.safetensors")
    checkpoint, passed_over = store.newest_good()
    _assert_is(checkpoint, 1)
    assert [str(folders[2]) in passed_over[0], str(folders[1]) in passed_over[1]] == [True, True]


def test_without_a_usable_checkpoint_all_reasons_are_told(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    with pytest.raises(UserError, match="holds none"):
        store.newest_good()
    for env_steps in (1, 2):
        _truncate(_save(store, env_steps) / "state.json")
    with pytest.raises(UserError, match=r"(?s)000000000002.*000000000001"):
        store.newest_good()


@pytest.mark.parametrize(
    ("number", "says", "remedy"),
    [
        (
            3,
            "older",
            r"use version 0\.1\.0, .* \(git checkout e7dd1cb && make setup",
        ),
        (5, "newer", "use the version that wrote it"),
    ],
)
def test_another_format_is_refused_with_the_version_that_reads_it(
    number: int, says: str, remedy: str, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    _rewrite_manifest(_save(store, 1), format=number)
    words = f"format {number} is {says} than this program's 4: {remedy}"
    with pytest.raises(UserError, match=words):
        store.newest_good()


def test_a_checkpoint_just_written_outlives_damaged_newer_ones(tmp_path: Path) -> None:
    """A run that fell back to an older checkpoint writes steps below those of the damaged one."""
    store = CheckpointStore(tmp_path, keep=1)
    _save(store, 1000)
    _truncate(_save(store, 3000) / "state.json")
    _save(store, 2000)
    _assert_is(store.newest_good()[0], 2000)


class _Bomb:
    """Unpickling this would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.mark,))


def test_a_damaged_best_checkpoint_does_not_cost_the_next_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    _save(store, 1000, score=8.0)
    _truncate(_save(store, 2000, score=9.0) / "state.json")
    _save(store, 3000, score=1.0)
    _assert_is(store.best()[0], 1000)


@pytest.mark.parametrize("name", ["learner.safetensors", "state.json"])
def test_a_pickle_in_a_files_place_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    """Even where the manifest vouches for it."""
    store, mark = CheckpointStore(tmp_path / "checkpoints", keep=3), tmp_path / "exploded"
    _save(store, 1000)
    folder = _save(store, 2000)
    (folder / name).write_bytes(pickle.dumps(_Bomb(mark)))
    _bless(folder, name)
    checkpoint, passed_over = store.newest_good()
    _assert_is(checkpoint, 1000)
    assert "not a checkpoint" in passed_over[0]
    assert not mark.exists()


def test_nothing_that_is_loaded_back_is_pickled() -> None:
    """No module of the program imports pickle, loads arrays with it, or lets NumPy do so."""
    root = Path(__file__).parents[2]
    for path in [root / "train.py", *sorted((root / "hvd_dqn").rglob("*.py"))]:
        text = path.read_text()
        for word in ("import pickle", "cloudpickle", "allow_pickle=True", "np.load(", "np.save(", "joblib", "shelve"):
            assert word not in text, f"{path} uses {word}"
