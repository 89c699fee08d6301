"""The memory that the ranks of a host may take together."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from hvd_dqn.distributed.cores import control_groups

_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""The files of a control group that hold its limit, in versions 2 and 1."""


def usable_memory(meminfo: Path = Path("/proc/meminfo"), groups: Sequence[Path] | None = None) -> int:
    """Returns bytes: what the host has available, swap included, within the limits of this process' control groups.

    Args:
      meminfo: the kernel's account of the host's memory.
      groups: folders of control groups; those of this process by default.
    """
    lines = (line.split() for line in meminfo.read_text().splitlines())
    kibibytes = {words[0]: int(words[1]) for words in lines}
    limits = [1024 * (kibibytes["MemAvailable:"] + kibibytes["SwapFree:"])]
    for group in control_groups("memory") if groups is None else groups:
        for name in _LIMITS:
            try:
                limits.append(int((group / name).read_text()))
            except (OSError, ValueError):  # absent, or "max"
                continue
    return min(limits)


def machine() -> str:
    """Returns an identifier that is equal for the processes that share a memory."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {socket.gethostname()}"
