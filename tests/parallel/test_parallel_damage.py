"""Damaged, foreign and poisoned checkpoints: found, named, and passed over for the newest good one."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from forms import only_in_full
from launching import GENERAL, checkpoints
from persistent_ranks import PersistentRanks

from hvd_dqn.checkpoint.files import sha256
from hvd_dqn.checkpoint.store import CheckpointStore

pytestmark = [pytest.mark.parallel, pytest.mark.faults]

RUN = (
    *("--total-env-steps", "2400", "--learning-starts", "300", "--train-period", "4", "--global-batch-size", "16"),
    *("--hidden-sizes", "16", "--num-envs", "6", "--replay-capacity", "1500", "--log-period", "600"),
    *("--evaluation-period", "0", "--final-evaluation-episodes", "2", "--checkpoint-period", "200"),
    *("--keep-checkpoints", "100", "--name", "whole", *GENERAL),
)
MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def whole(persistent_ranks: PersistentRanks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the directory of a run of two ranks with twelve checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    persistent_ranks.run_well(2, *RUN, "--runs-dir", folder)
    (run_directory,) = folder.glob("*/whole")
    assert len(checkpoints(run_directory)) == 12
    return run_directory


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """Returns a copy to spoil."""
    return shutil.copytree(whole, tmp_path / "copy")


def _learner(checkpoint: Path) -> str:
    return json.loads((checkpoint / MANIFEST).read_text())["files"]["learner.safetensors"]["sha256"]


def _newest_segment(checkpoint: Path, rank: int) -> Path:
    """Returns the last of a rank's segments that a checkpoint names."""
    state = json.loads((checkpoint / "state.json").read_text())
    return checkpoint.parent / "replay" / state["ranks"][rank]["segments"][-1]["file"]


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _sign(folder: Path, **changes: Any) -> None:
    """Rewrites a manifest so that it vouches for itself, and for the files as they are now."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    del manifest["sha256"]
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        manifest["files"][name] = {"bytes": len(content), "sha256": sha256(content)}
    digest = sha256(json.dumps(manifest, sort_keys=True).encode())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": digest}))


def _assert_resumes_from(good: Path, said: dict[Path, str], whole: Path, persistent_ranks: PersistentRanks) -> None:
    """Resumes, and looks for a line on each unusable checkpoint; the run ends where it had ended."""
    run_directory = good.parents[1]
    resumed = persistent_ranks.run_well(2, "--resume", run_directory)
    for folder, reason in said.items():
        (line,) = [line for line in resumed.output.splitlines() if f"checkpoint {folder} cannot be used" in line]
        assert reason in line
    assert resumed.output.count("cannot be used") == len(said)
    assert f"resumed from the checkpoint at env step {int(good.name):,}" in resumed.output
    checkpoint, passed_over = CheckpointStore(run_directory / "checkpoints", keep=3).newest_good()
    assert (checkpoint.env_steps, passed_over) == (2400, [])
    (end,) = [folder for folder in checkpoints(run_directory) if folder.name.startswith(f"{2400:012d}")]
    assert _learner(end) == _learner(checkpoints(whole)[-1])


@pytest.mark.parametrize(
    "damage", [_flip_a_bit, pytest.param(_cut, marks=only_in_full), pytest.param(Path.unlink, marks=only_in_full)]
)
def test_every_kind_of_file_that_is_damaged_is_named_and_the_newest_good_checkpoint_is_used(
    damage: Callable[[Path], None], copy: Path, whole: Path, persistent_ranks: PersistentRanks, injected: Any
) -> None:
    """One file each of the last six checkpoints."""
    *_, good, manifest, model, learner, state, other, root = checkpoints(copy)
    damaged = {
        root: _newest_segment(root, 0),
        other: _newest_segment(other, 1),
        state: state / "state.json",
        learner: learner / "learner.safetensors",
        model: model / "model.safetensors",
        manifest: manifest / MANIFEST,
    }
    injected(f"damaged file of a checkpoint ({damage.__name__.strip('_').replace('_', ' ')})", len(damaged))
    for path in damaged.values():
        damage(path)
    said = {folder: path.name for folder, path in damaged.items()}
    if damage is Path.unlink:
        del said[manifest]  # a folder without one was never a checkpoint
    _assert_resumes_from(good, said, whole, persistent_ranks)


class _Bomb:
    """Unpickling this would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.mark,))


def test_foreign_newer_and_poisoned_checkpoints_are_named_and_nothing_of_theirs_is_run(
    copy: Path, whole: Path, persistent_ranks: PersistentRanks, tmp_path: Path, injected: Any
) -> None:
    """Even where a manifest vouches for them."""
    persistent_ranks.run_well(1, *RUN, "--seed", "9", "--runs-dir", tmp_path / "other")
    (other,) = (tmp_path / "other").glob("*/whole")
    mark = tmp_path / "exploded"
    *_, good, deep, header, pickled, unpacked, newer, foreign = checkpoints(copy)
    injected("manifest of another run or a newer format", 2)
    shutil.copy(checkpoints(other)[-1] / MANIFEST, foreign / MANIFEST)
    _sign(newer, format=1000)
    injected("poisoned checkpoint", 4)
    (unpacked / "learner.safetensors").write_bytes(pickle.dumps(_Bomb(mark)))
    (pickled / "state.json").write_bytes(pickle.dumps(_Bomb(mark)))
    (header / "learner.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{")
    (deep / "state.json").write_bytes(b"[" * 1_000_000)
    for folder in (unpacked, pickled, header, deep):
        _sign(folder)
    said = {
        foreign: "safetensors",
        newer: "its format 1000 is newer than this program's",
        **dict.fromkeys((unpacked, pickled, header, deep), "its contents are not a checkpoint"),
    }
    _assert_resumes_from(good, said, whole, persistent_ranks)
    assert not mark.exists()


def test_a_poisoned_segment_is_not_unpacked(copy: Path, persistent_ranks: PersistentRanks, injected: Any) -> None:
    """Five gigabytes of zeros under their right checksum, in the newest checkpoint, which is then passed over."""
    injected("poisoned checkpoint")
    newest = checkpoints(copy)[-1]
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=5_000_000_000)
    bomb = b"".join([compressor.compress(bytes(50_000_000)) for _ in range(100)]) + compressor.flush()
    state = json.loads((newest / "state.json").read_text())
    segment = state["ranks"][1]["segments"][-1]
    file = f"{segment['file'][:32]}-{sha256(bomb)}.zst"
    (newest.parent / "replay" / file).write_bytes(bomb)
    segment |= {"file": file, "bytes": len(bomb), "sha256": sha256(bomb)}
    (newest / "state.json").write_text(json.dumps(state))
    _sign(newest)
    outcome = persistent_ranks.run_well(2, "--resume", copy, "--total-env-steps", "3000")
    assert f"checkpoint {newest} cannot be used: rank-00001-of-00002: " in outcome.output
    assert "it is larger than expected" in outcome.output


@only_in_full
@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("counters", {"env_steps": "many"}, "holds a state that this program cannot use"),
        ("averages", None, "holds a state that this program cannot use"),
        ("generators", {"policy": {}, "replay": {}}, "generators cannot be used"),
    ],
)
def test_a_state_that_is_vouched_for_and_makes_no_sense_is_refused_in_words(
    place: str, value: Any, says: str, copy: Path, persistent_ranks: PersistentRanks, injected: Any
) -> None:
    injected("poisoned checkpoint")
    newest = checkpoints(copy)[-1]
    state = json.loads((newest / "state.json").read_text())
    (state["ranks"][1] if place == "generators" else state)[place] = value
    (newest / "state.json").write_text(json.dumps(state))
    _sign(newest)
    outcome = persistent_ranks.run(2, "--resume", copy, "--total-env-steps", "3000")
    assert outcome.code == 2, outcome.output
    assert says in outcome.output
    assert "Traceback" not in outcome.output


def test_a_damaged_segment_that_all_checkpoints_share_costs_only_its_transitions_if_asked_for(
    copy: Path, persistent_ranks: PersistentRanks, injected: Any
) -> None:
    newest = checkpoints(copy)[-1]
    state = json.loads((newest / "state.json").read_text())
    for old in checkpoints(copy)[:9]:
        shutil.rmtree(old)
    shared = newest.parent / "replay" / state["ranks"][1]["segments"][3]["file"]
    injected("damaged file of a checkpoint (flip a bit)")
    _flip_a_bit(shared)
    more = ("--resume", copy, "--total-env-steps", "3000")
    refused = persistent_ranks.run(2, *more)
    assert refused.code == 2, refused.output
    assert refused.output.count(shared.name) == 3
    count = state["ranks"][1]["segments"][3]["count"]
    assert f"The weights of {newest} are intact: add --allow-missing-replay to resume from it" in refused.output
    resumed = persistent_ranks.run_well(2, *more, "--allow-missing-replay")
    assert f"checkpoint {newest} lacks {count} transitions: rank-00001-of-00002: {shared.name}" in resumed.output
    assert f"was resharded: {1500 - count:,} on 2" in resumed.output
    assert "resumed from the checkpoint at env step 2,400" in resumed.output
    assert json.loads((copy / "config.json").read_text())["config"]["allow_missing_replay"] is False
    persistent_ranks.run_well(2, "--resume", copy, "--total-env-steps", "3600")


@pytest.fixture
def read_only_disk(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """Yields a file system that holds the run and cannot be written."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"only root may mount a file system: {mount.stderr.strip()}")
    try:
        shutil.copytree(whole, folder / "copy")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("how", ["resume", pytest.param("new run", marks=only_in_full)])
def test_a_directory_that_cannot_be_written_is_refused_with_one_message(
    how: str, read_only_disk: Path, persistent_ranks: PersistentRanks, injected: Any
) -> None:
    injected("read-only run directory")
    options = {"resume": ("--resume", read_only_disk / "copy"), "new run": ("--runs-dir", read_only_disk)}[how]
    outcome = persistent_ranks.run(2, *options, "--total-env-steps", "3000")
    assert outcome.code == 2, outcome.output
    assert outcome.output.count("Read-only file system") == 1, outcome.output
    assert str(read_only_disk) in outcome.output
    assert "Traceback" not in outcome.output
