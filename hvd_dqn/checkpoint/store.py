"""The checkpoint store: which checkpoints there are, which to retain, and which to resume from.

    checkpoints/<env_steps>/    a checkpoint (contents.py)
    checkpoints/replay/         the ranks' transitions, in segments shared by several checkpoints (segments.py)

A step that is saved again goes to a new folder, <env_steps>-1. The earlier folder is removed once the new one is
complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from hvd_dqn.checkpoint.contents import (
    Checkpoint,
    read_checkpoint,
    read_manifest,
    without_segments,
    write_checkpoint,
)
from hvd_dqn.checkpoint.files import read_verified, remove
from hvd_dqn.checkpoint.listing import MANIFEST, find_checkpoints, step_and_copy
from hvd_dqn.checkpoint.segments import FOLDER as REPLAY_FOLDER
from hvd_dqn.checkpoint.segments import MOST_BYTES, remove_unnamed
from hvd_dqn.checkpoint.storage import ObjectPath
from hvd_dqn.errors import CheckpointError, UserError

Place = TypeVar("Place", Path, ObjectPath)


class CheckpointStore(Generic[Place]):
    """Writes checkpoints, retains the newest N and the best one, and reads the newest usable one."""

    def __init__(self, folder: Place, keep: int, check: Callable[[], None] = lambda: None) -> None:
        """Opens a store in `folder`, which is created with the first checkpoint.

        Args:
          folder: the folder of all checkpoints.
          keep: how many of the newest checkpoints to retain.
          check: called before a manifest is written and before anything is removed; raises if that is not allowed.
        """
        self.folder: Place = folder
        self._keep = keep
        self._check = check

    def save(self, checkpoint: Checkpoint, weights: dict[str, np.ndarray]) -> Place:
        """Writes a checkpoint and removes old ones.

        Args:
          checkpoint: the state to save.
          weights: the online network's weights by layer, for use by other programs.

        Returns:
          The checkpoint's folder.

        Raises:
          OSError: if it cannot be written. Earlier checkpoints are not changed.
        """
        folder = self._free_folder(checkpoint.env_steps)
        remove(folder)
        write_checkpoint(folder, checkpoint, weights, self._check)
        self._remove_old(written=folder.name)
        return folder

    def newest_good(
        self, allow_missing_replay: bool = False, damaged: dict[str, str] | None = None
    ) -> tuple[Checkpoint, list[str]]:
        """Reads the newest usable checkpoint.

        Args:
          allow_missing_replay: accept a checkpoint with damaged segments, and leave out their transitions. Its own
            files must be intact.
          damaged: the segments that are, as a message by file; who asks reads the others. None checks all here.

        Returns:
          The checkpoint, and one line for each newer checkpoint that was skipped or for the missing transitions.

        Raises:
          UserError: if there is no usable checkpoint.
        """
        skipped: list[str] = []
        remedy = ""
        verdicts: dict[str, str] = {}
        found: tuple[list[str], list[str]] = find_checkpoints(self.folder)
        for name in sorted([*found[0], *found[1]], key=step_and_copy, reverse=True):
            folder = self.folder / name
            if name in found[1]:
                skipped.append(f"checkpoint {folder} is incomplete: it has no {MANIFEST}")
                continue
            try:
                checkpoint = read_checkpoint(folder)
            except CheckpointError as error:
                skipped.append(f"checkpoint {folder} cannot be used: {error}")
                continue
            damage = self._damage(checkpoint, verdicts) if damaged is None else _named_by(checkpoint, damaged)
            if not damage:
                return checkpoint, skipped
            whole = without_segments(checkpoint, set(damage))
            reason = f"{next(iter(damage.values()))}{f' (and {len(damage) - 1} more)' if len(damage) > 1 else ''}"
            if allow_missing_replay:
                skipped.append(f"checkpoint {folder} lacks {whole.lost:,} transitions: {reason}")
                return whole, skipped
            skipped.append(f"checkpoint {folder} cannot be used: {reason}")
            remedy = remedy or (
                f"\nThe weights of {folder} are intact: add --allow-missing-replay to resume from it without "
                f"{whole.lost:,} of its transitions."
            )
        reasons = "\n".join(skipped) or f"{self.folder} holds none"
        raise UserError(f"no usable checkpoint:\n{reasons}{remedy}")

    def best(self) -> tuple[Checkpoint | None, list[str]]:
        """Returns the usable checkpoint with the highest score, or None, and one line for each skipped one.

        Among equal scores the newest wins. The replay is not checked.
        """
        folder, skipped = self._best_folder()
        return (None if folder is None else read_checkpoint(folder)), skipped

    @property
    def empty(self) -> bool:
        """Returns True if the store holds no complete checkpoint."""
        return not self._folders()

    @property
    def replay_folder(self) -> Place:
        """Returns the folder of the segments."""
        return self.folder / REPLAY_FOLDER

    def _free_folder(self, env_steps: int) -> Place:
        """Returns a folder for this step that holds no checkpoint yet."""
        steps = [step_and_copy(name) for name in find_checkpoints(self.folder)[0]]
        copies = [copy for step, copy in steps if step == env_steps]
        return self.folder / (f"{env_steps:012d}" + (f"-{max(copies) + 1}" if copies else ""))

    def _folders(self) -> list[Place]:
        """Returns the checkpoints' folders, oldest first."""
        return [self.folder / name for name in find_checkpoints(self.folder)[0]]

    def _best_folder(self) -> tuple[Place | None, list[str]]:
        scored, skipped = [], []
        for folder in self._folders():
            try:
                score = read_manifest(folder)["score"]
            except CheckpointError as error:
                skipped.append(f"checkpoint {folder} cannot be used: {error}")
                continue
            if score is not None:
                scored.append((score, step_and_copy(folder.name), folder))
        for _, _, folder in sorted(scored, reverse=True):
            try:
                read_checkpoint(folder)
                return folder, skipped
            except CheckpointError as error:
                skipped.append(f"checkpoint {folder} cannot be used: {error}")
        return None, skipped

    def _damage(self, checkpoint: Checkpoint, verdicts: dict[str, str]) -> dict[str, str]:
        """Returns the damaged segments of a checkpoint, as a message by file.

        Args:
          checkpoint: the checkpoint.
          verdicts: results for the segments read so far, added to. Checkpoints share most of their segments.
        """
        for segment in (segment for rank in checkpoint.ranks for segment in rank.segments):
            if segment.file not in verdicts:
                try:
                    read_verified(self.replay_folder / segment.file, segment.facts, MOST_BYTES)
                    verdicts[segment.file] = ""
                except CheckpointError as error:
                    verdicts[segment.file] = f"{Path(segment.file).parent.name}: {error}"
        return _named_by(checkpoint, verdicts)

    def _remove_old(self, written: str) -> None:
        """Removes checkpoints older than `written` that are neither among the newest nor the best usable one.

        Newer ones stay. A run that skipped damaged checkpoints reaches their steps again and rewrites them.
        """
        self._check()
        complete, incomplete = find_checkpoints(self.folder)
        older = [name for name in complete if step_and_copy(name) < step_and_copy(written)]
        replaced = [name for name in older if step_and_copy(name)[0] == step_and_copy(written)[0]]
        others = [name for name in older if name not in replaced]
        old = replaced + others[: max(0, len(others) + 1 - self._keep)]
        best = self._best_folder()[0] if old else None
        for name in old:
            if best is None or name != best.name:
                with contextlib.suppress(OSError):  # the next call reports what cannot be removed
                    remove(self.folder / name / MANIFEST)  # first: the rest is no checkpoint any more
                remove(self.folder / name)
        for name in incomplete:
            if step_and_copy(name) < step_and_copy(written):
                remove(self.folder / name)  # left by a killed process
        self._remove_unnamed_segments()

    def _remove_unnamed_segments(self) -> None:
        """Removes segments that no manifest names. If a manifest is unreadable, removes none, as it may name any."""
        named: set[str] = set()
        for folder in self._folders():
            try:
                named |= set(read_manifest(folder)["segments"])
            except CheckpointError:
                return
        remove_unnamed(self.replay_folder, named)


def _named_by(checkpoint: Checkpoint, verdicts: dict[str, str]) -> dict[str, str]:
    """Returns those of the verdicts that are bad and on segments of this checkpoint."""
    named = {segment.file for rank in checkpoint.ranks for segment in rank.segments}
    return {file: verdict for file, verdict in verdicts.items() if verdict and file in named}
