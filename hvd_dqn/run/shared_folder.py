"""Finds out at the start whether all ranks see one and the same folder."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

from hvd_dqn.distributed.agreement import on_root, raise_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import UserError
from hvd_dqn.run.directory import TOKEN_PREFIX

_WAIT_SECONDS = 5.0
"""How long a rank looks for the token: a network file system may show a new file late."""


def check_shared_folder(communicator: Communicator, folder: Path, flag: str) -> None:
    """Lets rank 0 write a token file that all ranks must see. COLLECTIVE.

    Args:
      communicator: the job's.
      folder: where all ranks are going to write.
      flag: the option that names it, for the message.

    Raises:
      UserError: on all ranks, if a rank does not see the token.
    """
    name = TOKEN_PREFIX + secrets.token_hex(8)

    def write() -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        return [name, socket.gethostname(), str(folder.absolute())]

    token, host, place = on_root(communicator, write)  # COLLECTIVE
    try:
        raise_on_any_rank(communicator, lambda: _find(folder / token, host, place, flag))  # COLLECTIVE
    finally:
        if communicator.rank == 0:
            (folder / token).unlink(missing_ok=True)


def _find(token: Path, host: str, place: str, flag: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not token.exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"{socket.gethostname()} does not see the folder {place} of rank 0 on {host}: give a {flag} on a file "
                "system that all hosts share, and start all ranks in the same folder"
            )
        time.sleep(0.1)
