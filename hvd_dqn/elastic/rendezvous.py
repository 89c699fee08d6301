"""Gets a rank its place from Horovod's elastic driver, and waits until all others have theirs, before Horovod starts.

Horovod's core asks the driver itself, but it ends the process where an answer is not to its liking: when this host was
taken out of the job, or when a new rank dies while it starts. So it is told that nothing is elastic, and its place.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import MutableMapping

from hvd_dqn.errors import EXIT_FAILED

_PLACE = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
_HERE = "hvd_dqn_here"
_LOOK_SECONDS = 0.05
_ELASTIC_TIMEOUT_SECONDS = 600.0
"""Horovod's default: how long its driver waits for enough hosts."""
_LONGER_SECONDS = 30.0
"""The driver should speak first."""


def take_place(again: bool, patience_seconds: float, environ: MutableMapping[str, str] = os.environ) -> None:
    """Returns when all ranks that the driver has for the job are about to start Horovod.

    Args:
      again: whether this rank has been in the job before; a new one finds its place in its environment.
      patience_seconds: how long to wait for ranks that are starting before the driver is asked for another set.
      environ: learns the place.

    Raises:
      SystemExit: if the driver does not answer.
    """
    url = f"http://{environ['HOROVOD_GLOO_RENDEZVOUS_ADDR']}:{environ['HOROVOD_GLOO_RENDEZVOUS_PORT']}"
    while True:
        if again:
            environ.update(_ask(url, environ))
            environ["HOROVOD_ELASTIC"] = "0"
        if _all_are_here(url, int(environ["HOROVOD_RANK"]), int(environ["HOROVOD_SIZE"]), patience_seconds):
            return
        again = True


def _ask(url: str, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Asks for the place in the next set of ranks; the driver answers once every rank of this set has asked or died."""
    slot = f"{environ['HOROVOD_HOSTNAME']}:{environ['HOROVOD_LOCAL_RANK']}"
    limit = float(environ.get("HOROVOD_ELASTIC_TIMEOUT", _ELASTIC_TIMEOUT_SECONDS)) + _LONGER_SECONDS
    try:
        with urllib.request.urlopen(f"{url}/rank_and_size/{slot}", timeout=limit) as answer:
            place = dict(zip(_PLACE, answer.read().decode().split(","), strict=True))
    except OSError as error:
        print(
            f"hvd_dqn: the elastic driver has no place for {slot} ({error}): it is gone, or for {limit:g} s another "
            "rank has neither answered nor died. The rank ends; go on with --resume RUN_DIR.",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(EXIT_FAILED) from None
    if place["RANK"] == "-1":
        print(f"hvd_dqn: {slot} has been taken out of the job; its rank leaves", file=sys.stderr, flush=True)
        # At once, and as a failure: should the host be back already, the driver takes this for the end of the new rank,
        # and a success for the end of the job.
        os._exit(EXIT_FAILED)
    return {f"HOROVOD_{name}": value for name, value in place.items()}


def _all_are_here(url: str, rank: int, size: int, patience_seconds: float) -> bool:
    """Leaves a mark with the driver, which forgets all marks with each new set; returns whether all ranks left one."""
    own = f"{url}/{_HERE}/{rank}"
    _send("PUT", own)
    deadline = time.monotonic() + patience_seconds
    for other in range(size):
        while not _is_marked(f"{url}/{_HERE}/{other}"):
            if time.monotonic() > deadline:
                _send("DELETE", own)  # who comes too late must not take this rank for one that waits
                return False
            time.sleep(_LOOK_SECONDS)
    return True


def _is_marked(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError:
        return False


def _send(method: str, url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data=b"1", method=method)):
        pass
