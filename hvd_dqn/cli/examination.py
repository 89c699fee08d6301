"""What hvd-dqn doctor finds out on each rank: facts first, then what the ranks have between them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvd_dqn.cli.entry import program
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import UserError
from hvd_dqn.fingerprint import code_digest
from hvd_dqn.run.supervised import Send

if TYPE_CHECKING:
    from hvd_dqn.distributed.communicator import Communicator

LENGTHS = (1, 17_000, 4_000_000)
"""Elements of the vectors that are summed: a flag, the gradient of a network such as CartPole's, and 16 MB."""


@dataclass
class Evidence:
    """What rank 0 knows so far; a field that was not reached has its first value."""

    launch: Launch
    doing: str = "starting"
    ended: str = ""
    """Why the examination ended early, if it did."""
    ranks: list[dict[str, Any]] = field(default_factory=list)
    """The facts of each rank, or of rank 0 alone until the ranks are joined."""
    controller: str = ""
    folder_problem: str | None = None
    """"" if all ranks see the folder and rank 0 can write there."""
    clocks: list[tuple[float, float]] = field(default_factory=list)
    """Bounds of each rank's clock minus rank 0's, in seconds."""
    allreduces: list[dict[str, Any]] = field(default_factory=list)
    """Of `time_allreduce`, with "by": what summed."""
    problem: str = ""
    """The error that was raised while `doing`."""

    def receive(self, name: str, value: Any) -> None:
        """Takes a message of the examination: the new value of a field, or an item of a list."""
        if name == "own":
            self.ranks = [{**(self.ranks[0] if self.ranks else {}), **value}]
        elif name == "allreduces":
            self.allreduces.append(value)
        else:
            setattr(self, name, value)


def examine(launch: Launch, folder: Path, seconds: float, send: Send) -> None:
    """Examines this rank, joins the others and measures what lies between them; a collective.

    Args:
      launch: how this process was started.
      folder: where runs would be written.
      seconds: how long this rank waits for the others in Horovod.
      send: takes the findings, as fields of `Evidence`.
    """
    from hvd_dqn.distributed.facts import host_facts, library_facts

    send("doing", "looking at its host")
    own = host_facts(launch) | _folder_facts(folder) | {"code": code_digest(program())}
    send("own", own)
    communicator = None
    try:
        send("doing", "comparing cores with the ranks of its host")
        threads = prepare_environment(launch, 0, seconds)  # COLLECTIVE
        send("doing", "importing TensorFlow, Horovod and MPI")
        own |= {"own_cores": sorted(os.sched_getaffinity(0)), "threads": threads} | library_facts(launch)
        own["native_problem"] = _native_problem()
        send("own", own)
        send("doing", "joining the other ranks")
        runtime = start(launch, threads, "auto", timeline=False)  # COLLECTIVE
        own |= {"device": runtime.device, "no_device": runtime.no_device}
        communicator = runtime.communicator
        send("controller", communicator.controller)
        ranks = communicator.gather_json(own)  # COLLECTIVE
        send("ranks", ranks)
        send("doing", f"looking at the folder {folder}")
        send("folder_problem", _folder_problem(communicator, Path(own["folder"])))  # COLLECTIVE
        if communicator.size > 1:
            _measure(communicator, ranks, send)  # COLLECTIVE
        send("doing", "ending")
        communicator.barrier()  # COLLECTIVE
        communicator.shutdown()
    except Exception as error:  # whatever a broken installation raises is what this command is for
        send("problem", f"{type(error).__name__}: {error}")


def _measure(communicator: Communicator, ranks: list[dict[str, Any]], send: Send) -> None:
    """Compares clocks and sums vectors; a collective."""
    from hvd_dqn.distributed.measure import compare_clocks

    send("doing", "comparing clocks")
    send("clocks", compare_clocks(communicator))  # COLLECTIVE
    if communicator.mpi_handles is not None:
        _time(communicator, communicator.sum, "MPI", send)  # COLLECTIVE
    if any("horovod_error" in rank or "tensorflow_error" in rank for rank in ranks):
        return
    import tensorflow as tf

    send("doing", "starting Horovod")
    communicator.start_horovod()  # COLLECTIVE
    in_graph = tf.function(communicator.allreduce_in_graph)

    def by_horovod(values: Any) -> Any:
        total = in_graph(tf.constant(values))  # COLLECTIVE
        tf.test.experimental.sync_devices()
        return total

    _time(communicator, by_horovod, "Horovod", send)  # COLLECTIVE


def _time(communicator: Communicator, allreduce: Callable[[Any], Any], by: str, send: Send) -> None:
    from hvd_dqn.distributed.measure import time_allreduce

    for length in LENGTHS:
        send("doing", f"summing {4 * length:,} bytes by {by}")
        send("allreduces", {"by": by} | time_allreduce(communicator, allreduce, length))  # COLLECTIVE


def _folder_facts(folder: Path) -> dict[str, Any]:
    """Returns the nearest folder that exists, and the bytes that are free there."""
    place = Path(os.path.abspath(folder))
    while not place.is_dir():
        place = place.parent
    state = os.statvfs(place)
    return {"folder": str(place), "folder_free": state.f_bavail * state.f_frsize}


def _folder_problem(communicator: Communicator, place: Path) -> str:
    """Returns what is wrong with the folder, "" if nothing; a collective."""
    from hvd_dqn.run.shared_folder import check_shared_folder

    try:
        check_shared_folder(communicator, place, "--runs-dir")  # COLLECTIVE
    except UserError as error:
        return str(error)
    return ""


def _native_problem() -> str:
    """Returns why the native learner cannot be used on this host, "" if it can."""
    from hvd_dqn.native.library import load_library

    try:
        load_library()
    except (UserError, OSError) as error:
        return str(error)
    return ""
