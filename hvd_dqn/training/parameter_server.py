"""A job with parameter servers: some ranks serve, all others train as the ranks of any job do.

Light on purpose: `main` imports it before TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from hvd_dqn.errors import EXIT_FAILED, EXIT_USER_ERROR, RankFailure, UserError
from hvd_dqn.run.heartbeat import make_heartbeat
from hvd_dqn.run.status import write_status
from hvd_dqn.strategies import is_asynchronous

_SECONDS_TO_FLUSH = 5.0
_SILENCE = 4.0
"""How many times the watchdog's limit a worker may be silent: its own watchdog allows its longest phases as much."""

if TYPE_CHECKING:
    from hvd_dqn.config import Config
    from hvd_dqn.distributed.communicator import Communicator
    from hvd_dqn.distributed.launcher import Launch
    from hvd_dqn.distributed.runtime import Runtime
    from hvd_dqn.run.stopping import StopRequest
    from hvd_dqn.training.run import Train


class ParameterServerJob:
    """One rank of a job with parameter servers."""

    def __init__(self, launch: Launch, config: Config) -> None:
        """Takes the launch of all ranks, and the configuration."""
        self._launch, self._asynchronous = launch, is_asynchronous(config)
        self._workers = launch.size - config.strategy.servers
        self._exit_code = EXIT_FAILED
        self._lost: Callable[[], bool] = lambda: False

    @property
    def serves(self) -> bool:
        """Returns whether this rank is a server."""
        return self._launch.rank >= self._workers

    def placed(self, device: str) -> tuple[Launch, str]:
        """Returns this rank's place among those of its host that need a device, and the device that it is to use.

        Servers use the CPU. They are the last ranks of a host, as launchers number the ranks host by host.
        """
        launch = self._launch
        behind = launch.rank - launch.local_rank + launch.local_size - self._workers
        if self.serves or behind <= 0:
            return launch, "cpu" if self.serves else device
        return dataclasses.replace(launch, local_size=launch.local_size - behind), device

    def connect(self) -> Communicator:
        """Connects the ranks, a collective. To be handed to `distributed.runtime.start`."""
        from hvd_dqn.distributed.servers import connect

        servers = self._launch.size - self._workers
        communicator, self._messages = connect(
            self._launch, servers, self._leave, asynchronous=self._asynchronous
        )  # COLLECTIVE
        return communicator

    def run(self, config: Config, runtime: Runtime, stop: StopRequest, command: list[str], train: Train) -> int:
        """Serves, or runs the job on the workers, and returns the exit code; see `training.run.run_job`."""
        from hvd_dqn.distributed.messages import PeerLost
        from hvd_dqn.distributed.relay import RanksChanged

        try:
            if self.serves:
                self._exit_code = self._serve(config, stop)
            else:
                self._exit_code = self._work(config, runtime, stop, command, train)
        except (UserError, RankFailure) as error:
            self._exit_code = EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
            raise
        except (PeerLost, RanksChanged) as lost:
            what = lost if isinstance(lost, PeerLost) else "a worker was lost"
            print(
                f"hvd_dqn: {what}: rank {self._launch.rank} cannot continue. The job ends; resume it with --resume "
                "RUN_DIR.",
                file=sys.stderr,
                flush=True,
            )
            write_status("exit_code", EXIT_FAILED)
            self._messages.abort(EXIT_FAILED)
            raise
        return self._exit_code

    def _serve(self, config: Config, stop: StopRequest) -> int:
        """Serves until worker 0 ends the job, and returns its exit code."""
        from hvd_dqn.distributed.runtime import start_compiler
        from hvd_dqn.learner.serving import Server, ServerParts
        from hvd_dqn.learner.serving_async import AsynchronousServer

        start_compiler()
        beat = make_heartbeat(self._launch.local_rank)
        parts = ServerParts(self._messages, self._workers, lambda: stop.requested, beat)
        if not self._asynchronous:
            return Server(parts).serve()
        server = AsynchronousServer(parts, _SILENCE * config.runtime.stall_timeout_seconds)
        self._lost = lambda: server.lost
        return server.serve()

    def _work(self, config: Config, runtime: Runtime, stop: StopRequest, command: list[str], train: Train) -> int:
        """Runs the job on the workers, and returns the exit code."""
        from hvd_dqn.distributed.servers import LivingWorkers
        from hvd_dqn.learner.served import Servers
        from hvd_dqn.learner.served_async import AsynchronousServers
        from hvd_dqn.training.run import run_job

        def pass_on() -> None:
            stop.requested, stop.reason = True, stop.reason or "a signal to a parameter server"

        ranks, communicator = range(self._workers, self._launch.size), runtime.communicator
        servers = Servers(self._messages, ranks, pass_on)
        if isinstance(communicator, LivingWorkers):
            servers = AsynchronousServers(self._messages, ranks, communicator.relay, pass_on)
            self._lost = lambda: len(communicator.relay.members) < self._workers
        return run_job(config, dataclasses.replace(runtime, servers=servers), stop, command, train)

    def _leave(self) -> None:
        """Ends the servers on worker 0. Where a rank is lost, exits at once: MPI would wait for it to the end."""
        from hvd_dqn.distributed.messages import Kind

        if self._launch.rank == 0:
            for rank in range(self._workers, self._launch.size):
                self._messages.send(rank, Kind.END, (self._exit_code,))
        self._messages.flush(_SECONDS_TO_FLUSH)
        if self._lost():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._exit_code)
