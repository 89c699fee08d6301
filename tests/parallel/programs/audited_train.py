"""Runs train.py and records, per rank, every path below the runs folder that the rank writes, makes or renames.

And every segment of a replay that it reads, as often as it does.

audited_train.py AUDIT_FOLDER RUNS_DIR ARGUMENTS...
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from hostile_envs import own_rank

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def main() -> None:
    """Runs on every rank."""
    audit_folder, runs_dir, *arguments = sys.argv[1:]
    below = os.path.abspath(runs_dir)
    touched: set[str] = set()
    segments: list[str] = []

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = values
            writing = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITE_FLAGS)
            paths = [path] if writing else []
            if not writing and str(path).endswith(".zst"):
                segments.append(Path(os.fspath(path)).name)
        elif event in _CHANGES:
            paths = list(values[:2])
        else:
            return
        for path in paths:
            if isinstance(path, (str, os.PathLike)):
                absolute = os.path.abspath(os.fspath(path))
                if absolute.startswith(below):
                    touched.add(os.path.relpath(absolute, below))

    sys.addaudithook(audit)
    script = str(Path(__file__).resolve().parents[3] / "train.py")
    sys.argv = [script, "--runs-dir", runs_dir, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        record = {"pid": os.getpid(), "touched": sorted(touched), "segments": segments}
        Path(audit_folder, f"rank{own_rank()}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
