"""When an iteration's learner steps run: after collecting, or overlapped with it (`--policy-lag 1`)."""

from __future__ import annotations

from concurrent.futures import Future

from hvd_dqn.training.job import Job, Update, Updates
from hvd_dqn.training.learning import Learned, learn
from hvd_dqn.training.overlap import Worker
from hvd_dqn.training.signals import Signals


class UpdatesAfterCollecting(Updates):
    """Learns after collecting: the policy has every update before it."""

    def finish(self, job: Job, own: Signals) -> Update:
        """Runs K updates in one call; the signals ride along."""
        learned = learn(job, learner_steps_due(job), own.vector(), healthy=not own.fault)  # COLLECTIVE
        return Update(learned.report, len(learned.skipped), Signals.of(learned.report.signals))


class OverlappedUpdates(Updates):
    """Learns from the iterations before this one while this one collects."""

    def __init__(self, worker: Worker) -> None:
        """Takes the worker that runs the learner steps."""
        self._worker = worker
        self._learning: Future[Learned]

    def begin(self, job: Job) -> None:
        """Hands K updates to the worker."""
        none = Signals().vector()
        self._learning = self._worker.submit(learn, job, learner_steps_due(job), none, True)  # COLLECTIVE

    def wait(self) -> None:
        """Waits for the worker."""
        self._learned = self._learning.result()

    def finish(self, job: Job, own: Signals) -> Update:
        """Sums the signals, which were not known when the updates began."""
        signals = Signals.of(job.communicator.sum(own.vector()))  # COLLECTIVE
        return Update(self._learned.report, len(self._learned.skipped), signals)

    def close(self) -> None:
        """Closes the worker."""
        self._worker.close()


def learner_steps_due(job: Job) -> int:
    """Returns K, equal on all ranks."""
    return job.counters.learner_steps_due(job.config.learner.train_period)
