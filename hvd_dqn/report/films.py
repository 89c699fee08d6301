"""The newest video of each group, embedded in the page or linked."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from hvd_dqn.errors import CheckpointError
from hvd_dqn.files import read_file
from hvd_dqn.report.groups import Group

_MOST_BYTES = 64 * 2**20
_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}


def films(groups: Sequence[Group], folder: Path, *, embedded: bool) -> str:
    """Returns the newest video of each group, nothing without any.

    Args:
      groups: of runs.
      folder: of the page, from which links lead.
      embedded: whether the page holds the videos; a link leads to one that is too large.
    """
    found = []
    for group in groups:
        paths = [run.film for run in group.runs if run.film is not None]
        if paths:
            found.append(_film(group, max(paths, key=lambda path: path.stat().st_mtime), folder, embedded))
    return f'<div class="charts">{"".join(found)}</div>' if found else ""


def _film(group: Group, path: Path, folder: Path, embedded: bool) -> str:
    size = f"{path.name}, {path.stat().st_size / 2**20:.1f} MB"
    link = f'<a href="{quote(os.path.relpath(path, folder))}">{escape(size)}</a>'
    shown = ""
    if embedded:
        try:
            data = f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(read_file(path, _MOST_BYTES)).decode()}"
        except (CheckpointError, FileNotFoundError):  # too large, or removed meanwhile
            data = ""
        label = f'aria-label="An episode of {escape(group.name)}"'
        if data.startswith("data:video"):
            shown = f'<video controls muted loop playsinline preload="metadata" {label} src="{data}"></video>'
        elif data:
            shown = f'<img alt="An episode of {escape(group.name)}" src="{data}">'
    about = escape(size) if shown else link
    return f'<figure class="film"><figcaption><h3>{escape(group.name)}</h3><p>{about}</p></figcaption>{shown}</figure>'
