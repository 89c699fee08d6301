"""Versions and revision of the software, which the ranks compare, and the machine; config.json records them."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("tensorflow", "keras", "horovod", "numpy", "gymnasium", "mpi4py", "openmpi")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that affect results, or "absent"."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def machine() -> dict[str, str]:
    """Returns what this host is: its system, processor, cores, memory and NVIDIA GPUs, as far as Linux shows them."""
    processors = re.findall(r"^model name\s*: (.+)$", _content("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _content("/proc/meminfo"), re.MULTILINE)
    models = (_content(str(path)) for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")))
    gpus = [found[1].strip() for found in (re.search(r"^Model:(.+)$", text, re.MULTILINE) for text in models) if found]
    return {
        "system": platform.platform(),
        "processor": next(iter(processors), platform.machine()),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "gpus": ", ".join(gpus) or "none",
    }


def code_digest(*entry_points: Path) -> str:
    """Returns a digest of the package's sources and the given files, as 16 hexadecimal digits."""
    package = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in [*sorted(package.rglob("*.py")), *sorted(package.rglob("*.[ch]")), *entry_points]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def git_revision() -> str:
    """Returns the git revision, with "-dirty" if there are uncommitted changes, or "unknown" outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _content(path: str) -> str:
    """Returns a file of the kernel, "" where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
