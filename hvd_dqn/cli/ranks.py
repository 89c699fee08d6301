"""How a program of ranks ends: with one message, the same exit code on all ranks, and no launcher in doubt."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.errors import EXIT_FAILED, EXIT_USER_ERROR, RankFailure, UserError
from hvd_dqn.run.leaving import bound_exit
from hvd_dqn.run.status import write_status
from hvd_dqn.run.stopping import StopRequest

if TYPE_CHECKING:
    from hvd_dqn.distributed.communicator import Communicator


def refuse(program: str, error: UserError, launch: Launch, stop: StopRequest) -> int:
    """Reports a mistake found before the ranks are connected: once, as all ranks find the same.

    Returns:
      The exit code.
    """
    if launch.rank > 0:
        # Rank 0 prints and exits first; its launcher then ends the others. A rank that is still alive after a while
        # has found the mistake alone (another file on its host) and has to print it.
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            if stop.requested:
                return EXIT_USER_ERROR
            time.sleep(0.05)
    print(f"{program}: {error}", file=sys.stderr, flush=True)
    if launch.rank == 0:
        write_status("exit_code", EXIT_USER_ERROR)
    return EXIT_USER_ERROR


def require_one_process(launch: Launch, what: str) -> None:
    """Refuses ranks for the work of one process.

    Args:
      launch: how this process was started.
      what: subject and verb of the message.

    Raises:
      UserError: if there are several ranks.
    """
    if launch.size > 1:
        raise UserError(f"{what} by one process, and {launch.size} were started: leave the launcher out")


def run_to_exit(program: str, communicator: Communicator, work: Callable[[], int]) -> int:
    """Runs a program's work on this rank and leaves the job; a collective.

    Args:
      program: its name, for messages.
      communicator: the job's.
      work: returns the exit code, a collective; UserError and RankFailure are raised on all ranks.

    Returns:
      The exit code.
    """
    streams = sys.stdout, sys.stderr
    try:
        try:
            code = work()  # COLLECTIVE
        finally:
            sys.stdout, sys.stderr = streams  # an environment may have replaced them
    except (UserError, RankFailure) as error:
        if communicator.rank == 0:
            print(f"{program}: {error}", file=sys.stderr, flush=True)
        code = EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
    except Exception:
        print(f"{program}: rank {communicator.rank} failed; the job ends", file=sys.stderr)
        traceback.print_exc()
        sys.stderr.flush()
        write_status("exit_code", EXIT_FAILED)
        communicator.abort(EXIT_FAILED)
    if communicator.rank == 0:
        write_status("exit_code", code)
    communicator.barrier()  # COLLECTIVE: the status is written before a launcher sees an exit and ends the rest
    communicator.shutdown()
    bound_exit(code)
    return code
