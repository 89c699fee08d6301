"""Files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, forces it to disk, and gives it its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json_atomically(path: Path, value: Any) -> None:
    """Writes indented JSON as `write_bytes_atomically` does."""
    write_bytes_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def sha256(content: bytes) -> str:
    """Returns the hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()
