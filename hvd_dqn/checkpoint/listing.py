"""Finds the checkpoints in a folder by their names alone."""

from __future__ import annotations

import re

from hvd_dqn.checkpoint.files import list_files
from hvd_dqn.checkpoint.storage import Location

MANIFEST = "manifest.json"
_FOLDER_NAME = re.compile(r"(\d{12,18})(?:-(\d{1,9}))?")
_COMPLETE = re.compile(rf"{_FOLDER_NAME.pattern}(/{re.escape(MANIFEST)}(/.*)?)?")
"""What marks a folder as a checkpoint. A link or a file in the place of either does, too: it hides a checkpoint."""


def find_checkpoints(folder: Location) -> tuple[list[str], list[str]]:
    """Returns the names of the checkpoints in a folder, and of those that lack their manifest; oldest first each.

    Raises:
      StoreError: if the folder or one in it cannot be read.
    """
    files = list_files(folder)
    complete = {name.partition("/")[0] for name in files if _COMPLETE.fullmatch(name)}
    begun = {name.partition("/")[0] for name in files if _FOLDER_NAME.fullmatch(name.partition("/")[0])}
    return sorted(complete, key=step_and_copy), sorted(begun - complete, key=step_and_copy)


def newest_checkpoint(folder: Location) -> int | None:
    """Returns the env steps of the newest checkpoint in a folder, or None.

    Raises:
      StoreError: if the folder or one in it cannot be read.
    """
    complete, _ = find_checkpoints(folder)
    return step_and_copy(complete[-1])[0] if complete else None


def step_and_copy(name: str) -> tuple[int, int]:
    """Returns a checkpoint's env step, and how often that step had been saved before."""
    match = _FOLDER_NAME.fullmatch(name)
    assert match is not None, name
    return int(match[1]), int(match[2] or 0)
