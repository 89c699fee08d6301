"""A job with parameter servers: some ranks serve, all others train as the ranks of any job do.

Light on purpose: `main` imports it before TensorFlow.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from hvd_dqn.errors import EXIT_FAILED, EXIT_USER_ERROR, RankFailure, UserError
from hvd_dqn.run.heartbeat import make_heartbeat

if TYPE_CHECKING:
    from hvd_dqn.config import Config
    from hvd_dqn.distributed.communicator import Communicator
    from hvd_dqn.distributed.launcher import Launch
    from hvd_dqn.distributed.messages import Messages
    from hvd_dqn.distributed.runtime import Runtime
    from hvd_dqn.run.stopping import StopRequest
    from hvd_dqn.training.run import Train


class ParameterServerJob:
    """One rank of a job with parameter servers."""

    def __init__(self, launch: Launch, servers: int) -> None:
        """Takes the launch of all ranks, and how many of them are servers, the last ones."""
        self._launch, self._servers = launch, servers
        self._exit_code = EXIT_FAILED

    @property
    def serves(self) -> bool:
        """Returns whether this rank is a server."""
        return self._launch.rank >= self._launch.size - self._servers

    def connect(self) -> Communicator:
        """Connects the ranks, a collective. To be handed to `distributed.runtime.start`."""
        from hvd_dqn.distributed.servers import connect

        communicator, self._messages = connect(self._launch, self._servers, self._end)  # COLLECTIVE
        return communicator

    def run(self, config: Config, runtime: Runtime, stop: StopRequest, command: list[str], train: Train) -> int:
        """Serves, or runs the job on the workers, and returns the exit code; see `training.run.run_job`."""
        from hvd_dqn.distributed.messages import PeerLost

        try:
            return self._serve(stop) if self.serves else self._work(config, runtime, stop, command, train)
        except PeerLost as lost:
            print(f"hvd_dqn: {lost}; the job ends. Resume it with --resume RUN_DIR.", file=sys.stderr, flush=True)
            self._messages.abort(EXIT_FAILED)
            raise

    def _serve(self, stop: StopRequest) -> int:
        from hvd_dqn.learner.serving import Server

        beat = make_heartbeat(self._launch.local_rank)
        return Server(self._messages, self._workers, lambda: stop.requested, beat).serve()

    def _work(self, config: Config, runtime: Runtime, stop: StopRequest, command: list[str], train: Train) -> int:
        from hvd_dqn.learner.served import Servers
        from hvd_dqn.training.run import run_job

        def pass_on() -> None:
            stop.requested, stop.reason = True, stop.reason or "a signal to a parameter server"

        servers = Servers(self._messages, range(self._workers, self._launch.size), pass_on)
        try:
            self._exit_code = run_job(config, dataclasses.replace(runtime, servers=servers), stop, command, train)
        except (UserError, RankFailure) as error:
            self._exit_code = EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
            raise
        return self._exit_code

    @property
    def _workers(self) -> int:
        return self._launch.size - self._servers

    def _end(self, messages: Messages) -> None:
        """Ends the servers with this worker's exit code."""
        from hvd_dqn.learner.served import Kind

        for rank in range(self._workers, self._launch.size):
            messages.send(rank, Kind.END, (self._exit_code,))
        messages.flush(1.0)
