"""One checkpoint: immutable files, and a manifest, written last, with the size and checksum of each file.

    <env_steps>/model.safetensors     the online network's weights by layer
                learner.safetensors   online, target and optimizer state as flat vectors
                state.json            counters, statistics, each rank's state
                manifest.json         marks the checkpoint as complete; includes its own checksum

Nothing that is loaded back is pickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from hvd_dqn.checkpoint.files import read_bytes, read_verified, sha256, write_bytes, write_json
from hvd_dqn.checkpoint.listing import MANIFEST, step_and_copy
from hvd_dqn.checkpoint.rank_state import RankState
from hvd_dqn.checkpoint.storage import Location
from hvd_dqn.counters import Counters
from hvd_dqn.errors import USE_OLD_VERSION, CheckpointError, StoreError
from hvd_dqn.files import parse_json

FORMAT = 4
_FILES = {"model.safetensors": 2**36, "learner.safetensors": 2**36, "state.json": 2**31}
"""A checkpoint's files, and the most bytes that each may have."""
_MANIFEST_BYTES = 2**26
_MALFORMED = (
    *(OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError, MemoryError, OverflowError),
    safetensors.SafetensorError,
)
"""Errors that malformed files raise when they are read."""


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint."""

    env_steps: int
    score: float | None
    """Mean return of the greedy evaluation at this step, if there was one."""
    learner: dict[str, np.ndarray]
    state: dict[str, Any]
    ranks: list[RankState]
    lost: int = 0
    """Transitions missing because their segments are damaged (--allow-missing-replay)."""


def write_checkpoint(
    folder: Location, checkpoint: Checkpoint, weights: dict[str, np.ndarray], check: Callable[[], None]
) -> None:
    """Writes a checkpoint's files, and its manifest last.

    Args:
      folder: its folder.
      checkpoint: the state to save.
      weights: the online network's weights by layer, for use by other programs.
      check: called before the manifest is written; raises if that is not allowed.

    Raises:
      OSError: if a file cannot be written.
    """
    state = {**checkpoint.state, "ranks": [rank.to_json() for rank in checkpoint.ranks]}
    contents = {
        "model.safetensors": safetensors.numpy.save(weights),
        "learner.safetensors": safetensors.numpy.save(checkpoint.learner),
        "state.json": (json.dumps(state, indent=1) + "\n").encode(),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content)
    manifest = {
        "format": FORMAT,
        "env_steps": checkpoint.env_steps,
        "score": checkpoint.score,
        "files": {name: {"bytes": len(c), "sha256": sha256(c)} for name, c in contents.items()},
        "segments": {segment.file: segment.facts for rank in checkpoint.ranks for segment in rank.segments},
    }
    check()
    write_json(folder / MANIFEST, manifest | {"sha256": _digest(manifest)})


def read_checkpoint(folder: Location) -> Checkpoint:
    """Reads a checkpoint and checks its own files; the replay's segments are not read.

    Raises:
      CheckpointError: if a file is missing, damaged or foreign.
      StoreError: if it cannot be read.
    """
    manifest = read_manifest(folder)
    contents = {name: read_verified(folder / name, manifest["files"][name], most) for name, most in _FILES.items()}
    try:
        state = parse_json(contents["state.json"])
        if Counters.from_dict(state["counters"]).env_steps != manifest["env_steps"] or not state["ranks"]:
            raise CheckpointError(f"its state.json does not belong to env step {manifest['env_steps']:,}")
        return Checkpoint(
            env_steps=manifest["env_steps"],
            score=manifest["score"],
            learner=safetensors.numpy.load(contents["learner.safetensors"]),
            ranks=[RankState.from_json(record) for record in state.pop("ranks")],
            state=state,
        )
    except _MALFORMED as error:
        raise CheckpointError(f"its contents are not a checkpoint ({_brief(error)})") from None


def read_manifest(folder: Location) -> dict[str, Any]:
    """Reads a manifest and checks its checksum, its format and its env step.

    Raises:
      CheckpointError: if any of them is wrong.
      StoreError: if the object store does not answer.
    """
    try:
        manifest = parse_json(read_bytes(folder / MANIFEST, _MANIFEST_BYTES))
        if manifest["format"] != FORMAT:
            raise CheckpointError(_other_format(manifest["format"]))
        if manifest.pop("sha256") != _digest(manifest):
            raise CheckpointError(f"{MANIFEST} is damaged: its checksum does not match")
        env_steps, score, files = manifest["env_steps"], manifest["score"], manifest["files"]
        sound = (
            type(env_steps) is int
            and (score is None or (type(score) is float and math.isfinite(score)))
            and set(files) == set(_FILES)
            and all(type(files[name]) is dict for name in _FILES)
            and type(manifest["segments"]) is dict
        )
    except (CheckpointError, StoreError):
        raise
    except _MALFORMED as error:
        raise CheckpointError(f"its {MANIFEST} cannot be read ({_brief(error)})") from None
    if not sound:
        raise CheckpointError(f"its {MANIFEST} does not describe a checkpoint")
    if env_steps != step_and_copy(folder.name)[0]:
        raise CheckpointError(f"its {MANIFEST} belongs to env step {env_steps:,}")
    return manifest


def without_segments(checkpoint: Checkpoint, lost: set[str]) -> Checkpoint:
    """Returns a checkpoint without the transitions of the lost segments."""
    ranks = [rank.without(lost) for rank in checkpoint.ranks]
    missing = sum(before.stored - after.stored for before, after in zip(checkpoint.ranks, ranks, strict=True))
    return replace(checkpoint, ranks=ranks, lost=missing)


def _other_format(number: int) -> str:
    """Returns what to do with a checkpoint of another version."""
    if number > FORMAT:
        return f"its format {number} is newer than this program's {FORMAT}: use the version that wrote it"
    return f"its format {number} is older than this program's {FORMAT}: {USE_OLD_VERSION}"


def _digest(manifest: dict[str, Any]) -> str:
    """Returns the checksum of a manifest's entries. Does not depend on their order."""
    return sha256(json.dumps(manifest, sort_keys=True).encode())


def _brief(error: BaseException) -> str:
    """Returns an error as one short line."""
    return repr(error)[:300]
