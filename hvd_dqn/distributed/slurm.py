"""Starts a rank under plain `srun`, with neither MPI nor ssh: rank 0 serves Horovod's Gloo rendezvous.

    srun --mpi=none --kill-on-bad-exit=1 python -m hvd_dqn.distributed.slurm train.py --preset cartpole

Slurm gives a task its rank. This module sets the variables that Horovod reads, and then executes the program.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from hvd_dqn.distributed.launcher import tasks_per_node
from hvd_dqn.errors import EXIT_USER_ERROR, UserError

_SCOPE, _KEY = "hvd_dqn", "job"
_PORTS = range(20_000, 32_000)  # below those that Linux hands out by itself
_CANDIDATES = 20
_WAIT_SECONDS = 300.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Task:
    """Where a task stands in its job step."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int
    host: str
    hosts: tuple[str, str]
    """The step's first and last host: rank 0's, and one to which the first has to speak."""
    name: str
    """The same for all tasks of the step, and for no other step."""

    @property
    def ports(self) -> list[int]:
        """Returns where rank 0 may listen: the same for all tasks, and rarely the same for two jobs on a host."""
        first = hash_of(self.name)
        return [_PORTS[(first + 601 * attempt) % len(_PORTS)] for attempt in range(_CANDIDATES)]


def hash_of(text: str) -> int:
    """Returns a number that every process computes alike."""
    return int.from_bytes(text.encode(), "big") % 1_000_003


def first_and_last(nodes: str) -> tuple[str, str]:
    """Returns the first and the last name of Slurm's short form of a list of hosts, such as node[01-03,07],big1."""
    groups = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", groups[0])
    last = re.sub(r"\[(?:[^\]]*[,-])?(\d+)\]", r"\1", groups[-1])
    return first, last


def read_task(environ: Mapping[str, str]) -> Task:
    """Reads Slurm's variables of a task.

    Raises:
      UserError: if this is no task of a job step.
    """
    try:
        rank, local_rank, node = (int(environ[f"SLURM_{name}"]) for name in ("PROCID", "LOCALID", "NODEID"))
        job, step, nodes = (environ[f"SLURM_{name}"] for name in ("JOB_ID", "STEP_ID", "STEP_NODELIST"))
        counts = tasks_per_node(environ["SLURM_STEP_TASKS_PER_NODE"])
    except KeyError as error:
        raise UserError(
            f"{error.args[0]} is not set, so srun did not start this: "
            "use srun --mpi=none --kill-on-bad-exit=1 python -m hvd_dqn.distributed.slurm train.py ..."
        ) from None
    alike = [number for number, count in enumerate(counts) if count > local_rank]
    return Task(
        rank=rank,
        size=sum(counts),
        local_rank=local_rank,
        local_size=counts[node],
        cross_rank=alike.index(node),
        cross_size=len(alike),
        host=environ.get("SLURMD_NODENAME", f"node {node}"),
        hosts=first_and_last(nodes),
        name=f"{job}.{step}.{environ.get('SLURM_RESTART_COUNT', '0')}",
    )


def horovod_variables(task: Task, address: str, port: int, interface: str) -> dict[str, str]:
    """Returns what Horovod's own launcher would set.

    Args:
      task: where this task stands.
      address: of the rendezvous.
      port: of the rendezvous.
      interface: name of the network interface that reaches the other hosts.
    """
    return {
        "HOROVOD_RANK": str(task.rank),
        "HOROVOD_SIZE": str(task.size),
        "HOROVOD_LOCAL_RANK": str(task.local_rank),
        "HOROVOD_LOCAL_SIZE": str(task.local_size),
        "HOROVOD_CROSS_RANK": str(task.cross_rank),
        "HOROVOD_CROSS_SIZE": str(task.cross_size),
        "HOROVOD_HOSTNAME": task.host,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_IFACE": interface,
        "NCCL_SOCKET_IFNAME": interface,
    }


def serve(task: Task, ports: list[int]) -> int:
    """Forks a process that serves the rendezvous for as long as this one lives; returns its port.

    Raises:
      UserError: if all ports are taken.
    """
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    for port in ports:
        try:
            server = RendezvousHTTPServer(("", port), RendezvousHandler, 0)
            break
        except OSError:
            continue
    else:
        raise UserError(f"no port for the rendezvous on {task.host}: tried {ports}; free one of them")
    server.cache = {_SCOPE: {_KEY: task.name.encode()}}
    parent = os.getpid()
    if os.fork() > 0:
        server.server_close()
        return port
    # Slurm signals all processes of a task; this one serves until the rank itself is gone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(0)


def find(task: Task, address: str, ports: list[int], seconds: float = _WAIT_SECONDS) -> int:
    """Returns the port at which rank 0 of this very step serves the rendezvous.

    Raises:
      UserError: if it does not answer in time.
    """
    # A proxy that the environment names is for the world outside.
    web = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for port in ports:
            try:
                with web.open(f"http://{address}:{port}/{_SCOPE}/{_KEY}", timeout=2.0) as answer:
                    if answer.read() == task.name.encode():
                        return port
            except (OSError, urllib.error.URLError):
                continue
        time.sleep(_LOOK_SECONDS)
    raise UserError(
        f"rank 0 on {task.hosts[0]} ({address}) did not answer within {seconds:g} s: it did not start, or a firewall "
        f"closes the ports {min(ports)} to {max(ports)} between {task.host} and it; "
        "HOROVOD_GLOO_RENDEZVOUS_ADDR and HOROVOD_GLOO_RENDEZVOUS_PORT name another way"
    )


def address_of(host: str) -> str:
    """Returns a host's IPv4 address.

    Raises:
      UserError: if its name is not known here.
    """
    try:
        return socket.gethostbyname(host)
    except OSError:
        raise UserError(
            f"Slurm's node name {host} has no address here: set HOROVOD_GLOO_RENDEZVOUS_ADDR to the first node's "
            "address and HOROVOD_GLOO_IFACE to the network interface between the nodes"
        ) from None


def interface_towards(address: str) -> str:
    """Returns the name of the network interface from which packets to an address leave."""
    import psutil

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(known.address == own for known in addresses):
            return str(name)
    raise UserError(f"no network interface has the address {own}: set HOROVOD_GLOO_IFACE")


def prepare(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables for the program of this task; on rank 0 also starts serving.

    Raises:
      UserError: if this is no task of a job step, or the tasks do not find each other.
    """
    task = read_task(environ)
    ports = [int(environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])] if "HOROVOD_GLOO_RENDEZVOUS_PORT" in environ else task.ports
    first, last = task.hosts
    address = environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR") or address_of(first)
    interface = environ.get("HOROVOD_GLOO_IFACE") or "lo"
    if first != last and "HOROVOD_GLOO_IFACE" not in environ:
        interface = interface_towards(address_of(last) if task.host == first else address)
    port = serve(task, ports) if task.rank == 0 else find(task, address, ports)
    # Communicator import TensorFlow before they meet, and a busy file server does not give it to all of them at once.
    defaults = {"HOROVOD_GLOO_TIMEOUT_SECONDS": environ.get("HOROVOD_GLOO_TIMEOUT_SECONDS", "120")}
    return defaults | horovod_variables(task, "127.0.0.1" if task.rank == 0 else address, port, interface)


def main(command: list[str]) -> int:
    """Becomes the Python program that the arguments name; returns only if it cannot."""
    try:
        if not command:
            raise UserError("name the program: python -m hvd_dqn.distributed.slurm train.py ...")
        os.environ.update(prepare(os.environ))
    except UserError as error:
        print(f"hvd_dqn.distributed.slurm: {error}", file=sys.stderr, flush=True)
        return EXIT_USER_ERROR
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
