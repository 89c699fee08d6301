"""Checkpoints: immutable files and a manifest, written last, that names each with its size and checksum.

    checkpoints/<env_steps>/model.safetensors     the online network's weights by layer
                            learner.safetensors   online, target and optimizer state as flat vectors
                            state.json            counters, statistics, each rank's own state
                            manifest.json         the checkpoint exists when this does
    checkpoints/replay/     the ranks' transitions, in segments that many checkpoints share (segments.py)

Nothing that is loaded back is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from hvd_dqn.errors import CheckpointError, UserError
from hvd_dqn.job.files import read_verified, remove_tree, sha256, write_bytes_atomically, write_json_atomically
from hvd_dqn.job.object_store import Location, ObjectPath, StoreError
from hvd_dqn.job.rank_state import RankState
from hvd_dqn.job.segments import FOLDER as REPLAY_FOLDER
from hvd_dqn.job.segments import remove_unnamed

FORMAT = 2
MANIFEST = "manifest.json"
Place = TypeVar("Place", Path, ObjectPath)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    env_steps: int
    score: float | None
    """Mean return of the greedy evaluation made at this very step, if there was one."""
    learner: dict[str, np.ndarray]
    state: dict[str, Any]
    ranks: list[RankState]


class CheckpointStore(Generic[Place]):
    """Writes checkpoints, keeps the newest N and the best, and reads back the newest good one."""

    def __init__(self, folder: Place, keep: int, check: Callable[[], None] = lambda: None) -> None:
        """Uses `folder`; it is made with the first checkpoint.

        Args:
          folder: of all checkpoints.
          keep: how many of the newest to keep.
          check: called before a manifest is written and before anything is removed; raises where neither may be done.
        """
        self.folder: Place = folder
        self._keep = keep
        self._check = check

    def save(self, checkpoint: Checkpoint, weights: dict[str, np.ndarray]) -> Place:
        """Writes a checkpoint and removes those that are no longer kept.

        Args:
          checkpoint: the state to come back to.
          weights: the online network's weights by layer, for other programs.

        Returns:
          The checkpoint's folder.

        Raises:
          OSError: if it cannot be written; the earlier checkpoints stay as they are.
        """
        folder = self._folder_of(checkpoint.env_steps)
        if (folder / MANIFEST).exists():
            (folder / MANIFEST).unlink()  # from here on the folder is no checkpoint until its new manifest is there
        folder.mkdir(parents=True, exist_ok=True)
        state = {**checkpoint.state, "ranks": [rank.to_json() for rank in checkpoint.ranks]}
        contents = {
            "model.safetensors": safetensors.numpy.save(weights),
            "learner.safetensors": safetensors.numpy.save(checkpoint.learner),
            "state.json": (json.dumps(state, indent=1) + "\n").encode(),
        }
        for name, content in contents.items():
            write_bytes_atomically(folder / name, content)
        manifest = {
            "format": FORMAT,
            "env_steps": checkpoint.env_steps,
            "score": checkpoint.score,
            "files": {name: {"bytes": len(c), "sha256": sha256(c)} for name, c in contents.items()},
            "segments": {segment.file: segment.facts for rank in checkpoint.ranks for segment in rank.segments},
        }
        self._check()
        write_json_atomically(folder / MANIFEST, manifest)
        self._remove_unkept(written=folder)
        return folder

    def newest_good(self) -> tuple[Checkpoint, list[str]]:
        """Reads the newest checkpoint that is whole.

        Returns:
          The checkpoint, and one line for each newer one that had to be passed over.

        Raises:
          UserError: if there is none.
        """
        passed_over: list[str] = []
        for folder in sorted(self._folders(), reverse=True):
            try:
                checkpoint = self._read(folder)
                for segment in (segment for rank in checkpoint.ranks for segment in rank.segments):
                    read_verified(self.replay_folder / segment.file, segment.facts)
                return checkpoint, passed_over
            except CheckpointError as error:
                passed_over.append(f"checkpoint {folder} cannot be used: {error}")
        reasons = "\n".join(passed_over) or f"{self.folder} holds none"
        raise UserError(f"no usable checkpoint:\n{reasons}")

    def best(self) -> Checkpoint | None:
        """Returns the good checkpoint with the highest score (the newest of equals), or None."""
        for _, folder in self._scored():
            try:
                return self._read(folder)
            except CheckpointError:
                continue
        return None

    @property
    def replay_folder(self) -> Place:
        """Returns the folder of the segments."""
        return self.folder / REPLAY_FOLDER

    def _folder_of(self, env_steps: int) -> Place:
        return self.folder / f"{env_steps:012d}"

    def _folders(self) -> list[Place]:
        """Returns the folders that have a manifest."""
        return [path.parent for path in self.folder.glob(f"*/{MANIFEST}")]

    def _scored(self) -> list[tuple[float, Place]]:
        scored = []
        for folder in self._folders():
            try:
                score = _read_manifest(folder)["score"]
            except CheckpointError:
                continue
            if score is not None:
                scored.append((score, folder))
        return sorted(scored, reverse=True)

    def _read(self, folder: Place) -> Checkpoint:
        manifest = _read_manifest(folder)
        contents = {name: read_verified(folder / name, facts) for name, facts in manifest["files"].items()}
        try:
            state = json.loads(contents["state.json"])
            return Checkpoint(
                env_steps=int(manifest["env_steps"]),
                score=manifest["score"],
                learner=safetensors.numpy.load(contents["learner.safetensors"]),
                ranks=[RankState.from_json(record) for record in state.pop("ranks")],
                state=state,
            )
        except (KeyError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"its contents are not a checkpoint ({error!r})") from None

    def _remove_unkept(self, written: Place) -> None:
        """Removes older checkpoints that are neither among the newest nor the best good one.

        Newer ones are left alone: a run that had to pass over damaged ones comes by again and writes them anew.
        """
        self._check()
        older = [folder for folder in sorted(self._folders()) if folder <= written][: -self._keep]
        best = self.best() if older else None
        for folder in older:
            if best is None or folder != self._folder_of(best.env_steps):
                (folder / MANIFEST).unlink()
                remove_tree(folder)
        remove_unnamed(self.replay_folder, self._named_segments())

    def _named_segments(self) -> set[str]:
        """Returns the segments that any checkpoint names; a manifest that cannot be read names none."""
        named: set[str] = set()
        for folder in self._folders():
            try:
                named |= set(_read_manifest(folder)["segments"])
            except CheckpointError:
                continue
        return named


def _read_manifest(folder: Location) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            age = "newer" if manifest["format"] > FORMAT else "older"
            raise CheckpointError(
                f"its format {manifest['format']} is {age} than this program's {FORMAT}: use the version that wrote it"
            )
        _ = manifest["env_steps"], manifest["score"], manifest["files"].items(), manifest["segments"].items()
    except StoreError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"its manifest cannot be read ({error!r})") from None
    return manifest
