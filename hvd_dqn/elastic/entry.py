"""The entry to elastic jobs: `main` in train.py makes one object of this class, and nothing else imports this folder.

Light on purpose: it is imported before TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd_dqn.config import Config
    from hvd_dqn.distributed.communicator import Communicator
    from hvd_dqn.distributed.runtime import Runtime
    from hvd_dqn.run.stopping import StopRequest
    from hvd_dqn.training.run import Train


class ElasticJob:
    """A job whose ranks come and go."""

    def connect(self) -> Communicator:
        """Joins the job, at its start or later; a collective. To be handed to `distributed.runtime.start`."""
        from hvd_dqn.elastic.driver import ElasticDriver

        self._driver = ElasticDriver()  # COLLECTIVE
        return self._driver.communicator

    def run(self, config: Config, runtime: Runtime, stop: StopRequest, command: list[str], train: Train) -> int:
        """Runs the job on whatever ranks there are, and returns the exit code; see `training.run.run_job`."""
        from hvd_dqn.elastic.recovery import run_elastic_job

        return run_elastic_job(self._driver, config, runtime, stop, command, train)  # COLLECTIVE
