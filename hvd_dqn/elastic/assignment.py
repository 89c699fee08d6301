"""Gets this process its rank from Horovod's elastic driver, and waits until all ranks have theirs.

Horovod's core can ask the driver itself, but it ends the process where this host was removed from the job, or where a
new rank dies while it starts. So Horovod's environment says that the job is not elastic, and names the rank.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import MutableMapping

from hvd_dqn.errors import EXIT_FAILED

_ASSIGNED = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
_READY = "hvd_dqn_ready"
_POLL_SECONDS = 0.05
_ELASTIC_TIMEOUT_SECONDS = 600.0
"""Horovod's default: how long its driver waits for enough hosts."""
_LONGER_SECONDS = 30.0
"""Longer than the driver waits, so that its message comes first."""


def wait_for_assignment(again: bool, timeout_seconds: float, environ: MutableMapping[str, str] = os.environ) -> None:
    """Returns when all ranks that the driver has for the job are about to start Horovod.

    Args:
      again: whether this process has been in the job before; a new one finds its rank in its environment.
      timeout_seconds: how long to wait for ranks that are starting before the driver is asked for another set.
      environ: takes the assignment.

    Raises:
      SystemExit: if the driver does not answer.
    """
    url = f"http://{environ['HOROVOD_GLOO_RENDEZVOUS_ADDR']}:{environ['HOROVOD_GLOO_RENDEZVOUS_PORT']}"
    while True:
        if again:
            environ.update(_ask(url, environ))
            environ["HOROVOD_ELASTIC"] = "0"
        if _all_ready(url, int(environ["HOROVOD_RANK"]), int(environ["HOROVOD_SIZE"]), timeout_seconds):
            return
        again = True


def _ask(url: str, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Asks for the rank in the next set; the driver answers once every rank of this set has asked or died."""
    slot = f"{environ['HOROVOD_HOSTNAME']}:{environ['HOROVOD_LOCAL_RANK']}"
    limit = float(environ.get("HOROVOD_ELASTIC_TIMEOUT", _ELASTIC_TIMEOUT_SECONDS)) + _LONGER_SECONDS
    try:
        with urllib.request.urlopen(f"{url}/rank_and_size/{slot}", timeout=limit) as answer:
            assigned = dict(zip(_ASSIGNED, answer.read().decode().split(","), strict=True))
    except OSError as error:
        print(
            f"hvd_dqn: the elastic driver assigns no rank to {slot} ({error}): it is gone, or for {limit:g} s another "
            "rank has neither answered nor died. This rank exits; resume with --resume RUN_DIR.",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(EXIT_FAILED) from None
    if assigned["RANK"] == "-1":
        print(f"hvd_dqn: {slot} was removed from the job; its rank exits", file=sys.stderr, flush=True)
        # At once, and as a failure: if the host is back already, the driver takes this exit for that of the new rank,
        # and a success for the end of the job.
        os._exit(EXIT_FAILED)
    return {f"HOROVOD_{name}": value for name, value in assigned.items()}


def _all_ready(url: str, rank: int, size: int, timeout_seconds: float) -> bool:
    """Sets this rank's ready key at the driver, which clears all with each new set; returns whether all ranks did."""
    own = f"{url}/{_READY}/{rank}"
    _send("PUT", own)
    deadline = time.monotonic() + timeout_seconds
    for other in range(size):
        while not _is_set(f"{url}/{_READY}/{other}"):
            if time.monotonic() > deadline:
                _send("DELETE", own)  # a rank that comes later must not take this one for ready
                return False
            time.sleep(_POLL_SECONDS)
    return True


def _is_set(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError:
        return False


def _send(method: str, url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data=b"1", method=method)):
        pass
