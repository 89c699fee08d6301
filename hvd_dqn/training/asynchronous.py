"""Learner steps of workers that do not wait for one another (`--strategy ps-async`), and how they synchronise.

Between two synchronisations nothing is collective: each worker learns at its own pace. As soon as a hook is due or a
worker has a signal, the coordinator announces a synchronisation, and each worker takes part at the end of its present
iteration. Workers that were lost are left out from the next one on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hvd_dqn.counters import Counters
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.relay import RanksChanged
from hvd_dqn.distributed.servers import LivingWorkers
from hvd_dqn.learner.learner import NUM_STATISTICS, Report, make_report
from hvd_dqn.learner.ledger import Rules
from hvd_dqn.learner.served_async import AsynchronousLearner, AsynchronousServers, Counts
from hvd_dqn.training.faults import not_finite
from hvd_dqn.training.job import Job, Result, Update, Updates
from hvd_dqn.training.learning import draw, present_learning_rate
from hvd_dqn.training.signals import Signals


class AsynchronousUpdates(Updates):
    """Learns from this worker's replay alone, at this worker's own pace."""

    def __init__(self, servers: AsynchronousServers, learner: AsynchronousLearner) -> None:
        """Takes this worker's side of the servers, and its learner."""
        self._servers, self._learner = servers, learner
        self._own = Counters()
        """As if all workers were as fast as this one: they say when an update of this worker is due."""
        self._begun = False
        self._synchronised = 0
        self._skipped = 0
        self._episodes = 0.0
        self._rows, self._statistics = 0.0, (0.0,) * NUM_STATISTICS
        """Of the counts when the latest learner step was complete."""
        self.counts: Counts | None = None
        """The job's progress as this worker knows it."""
        self.contributions = (StalenessRecord(self),)

    def target_update_period(self, configured: int) -> int:
        """Returns 0: the servers copy the parameters."""
        return 0

    def run(self, job: Job, action: Callable[[], Result]) -> Result:
        """Runs a collective, again among the workers that live if one is lost meanwhile."""
        while True:
            try:
                return action()  # COLLECTIVE
            except RanksChanged:
                self.synchronise(job)  # COLLECTIVE

    def begin(self, job: Job) -> None:
        """Sends the job's counters to the servers before the first iteration, a collective then."""
        if self._begun:
            return
        self._begun, counters = True, job.counters
        self._own = dataclasses.replace(counters)
        self._rows = float(counters.learner_steps * job.config.replay.global_batch_size)
        rules = rules_of(job)
        described = {
            "rules": dataclasses.asdict(rules),
            "counters": counters.as_dict(),
            "largest_priority": job.learning.replay.largest_priority,
        }
        self._learner.begin(described)
        communicator = _living(job)
        communicator.relay.while_waiting = lambda: job.watchdog.beat("waiting for the other workers")
        communicator.barrier()  # COLLECTIVE: no gradient comes before worker 0's parameters

    def finish(self, job: Job, own: Signals) -> Update:
        """Makes the updates that are due on this worker; a collective if the workers are to synchronise."""
        self._own.env_steps += job.config.environment.num_envs
        self._episodes += own.episodes
        wants_others = bool(own.stop or own.fault or own.save_failed)
        due = 0 if own.fault else self._own.learner_steps_due(job.config.learner.train_period)
        permitted, counts = self._report(job, job.acting.collector.num_envs, wants_others, due > 0)
        while due > 0 and permitted and job.acting.fault is None:
            self._update(job, counts)
            due -= 1
            if due > 0 and job.config.strategy.max_staleness > 0:
                permitted, counts = self._report(job, 0, wants_others, True)
        signals = None
        if counts.announced > self._synchronised:
            counts, signals = self._sum_signals(job, own)  # COLLECTIVE
        job.acting.values.load(self._learner.online)
        return self._updated(job, counts, signals)

    def synchronise(self, job: Job) -> Counts:
        """Numbers the living workers again and gives them the same parameters; a collective of all that live."""
        before = job.communicator.size
        counts = Counts.of(_living(job).roll_call().tolist())  # COLLECTIVE
        self._synchronised = int(counts.announced)
        if self._begun:
            self._learner.refresh()
        if job.communicator.size < before:
            _report_lost(job, before - job.communicator.size, int(counts.env_steps))
        return counts

    def _report(self, job: Job, env_steps: int, wants_others: bool, wants_update: bool) -> tuple[bool, Counts]:
        """Reports to the coordinator; see `AsynchronousServers.report`."""
        job.watchdog.beat("waiting for the other workers")
        skipped, self._skipped = self._skipped, 0
        answer = self._servers.report(env_steps, skipped, wants_others, wants_update)
        job.watchdog.beat("learning", allow=4.0 if job.learning.iterations < 2 else 1.0)
        return answer

    def _update(self, job: Job, counts: Counts) -> None:
        """Makes one update; one gradient too many that is not finite becomes this worker's fault."""
        sample, weights = draw(job, 1)
        self._learner.learning_rate = present_learning_rate(job)
        report = self._learner.learn(sample.transitions, weights, Signals().vector())
        job.learning.iterations += 1
        job.watchdog.beat("learning")
        if report.finite:
            job.learning.replay.update_priorities(sample.indices[0], report.priorities[0])
            self._own.learner_steps += 1
            return
        self._own.skipped_updates += 1
        self._skipped += 1
        allowed, skipped = job.config.learner.skip_nonfinite, int(counts.skipped) + self._skipped
        if skipped > allowed:
            job.acting.fault = not_finite("the gradient of an update", "on this worker", allowed)

    def _sum_signals(self, job: Job, own: Signals) -> tuple[Counts, Signals]:
        """Synchronises and sums the workers' signals, and their episodes since the last time; a collective."""
        vector = own._replace(episodes=self._episodes).vector()
        while True:
            counts = self.synchronise(job)  # COLLECTIVE
            try:
                signals = Signals.of(job.communicator.sum(vector))  # COLLECTIVE
            except RanksChanged:
                continue
            self._episodes = 0.0
            return counts, signals

    def _updated(self, job: Job, counts: Counts, signals: Signals | None) -> Update:
        """Brings the job's counters to where the coordinator's are, and returns the difference."""
        counters, self.counts = job.counters, counts
        steps = int(counts.rows) // job.config.replay.global_batch_size - counters.learner_steps
        skipped = int(counts.skipped) - counters.skipped_updates
        counters.env_steps = int(counts.env_steps)
        counters.target_updates = int(counts.target_updates)
        job.learning.replay.largest_priority = max(job.learning.replay.largest_priority, counts.priority)
        report = self._means(counts, steps)
        if signals is not None:
            whole = dataclasses.replace(counters, learner_steps=counters.learner_steps + steps)
            whole.skipped_updates += skipped
            whole.count_from_here()
            counters.learning_from_env_step = whole.learning_from_env_step
            counters.learning_from_learner_step = whole.learning_from_learner_step
        return Update(report, skipped, signals)

    def _means(self, counts: Counts, steps: int) -> Report:
        """Returns the means over the batches of all workers since the last learner step, as an update's report."""
        none = np.zeros((steps, 0), np.float32)
        if steps == 0:
            return make_report(0, 0, [0.0, 0.0, 0.0], [], none)
        rows = counts.rows - self._rows
        sums = [steps * (now - then) / rows for now, then in zip(counts.statistics, self._statistics, strict=True)]
        self._rows, self._statistics = counts.rows, counts.statistics
        return make_report(steps, steps, sums, [], none, counts.priority)


def rules_of(job: Job) -> Rules:
    """Returns the rules of the job's asynchronous workers."""
    config = job.config
    evaluation = config.evaluation
    periods = (
        config.job.log_period,
        config.job.checkpoint_period,
        evaluation.evaluation_period,
        evaluation.record_period,
    )
    return Rules(
        total_env_steps=config.job.total_env_steps,
        periods=periods,
        global_batch_size=config.replay.global_batch_size,
        target_update_period=config.learner.target_update_period,
        max_staleness=config.strategy.max_staleness,
        inverse_rate=config.strategy.staleness_lr == "inverse",
    )


class StalenessRecord:
    """Adds the staleness of the gradients since the last line to each training record."""

    def __init__(self, updates: AsynchronousUpdates) -> None:
        """Takes the updates that know it."""
        self._updates = updates
        self._before = (0.0, 0.0)

    def local(self) -> dict[str, Any]:
        """Returns nothing: the coordinator counts for all."""
        return {}

    def summarize(self, parts: list[dict[str, Any]]) -> dict[str, float]:
        """Returns the mean since the last line, and the largest since the job began."""
        counts = self._updates.counts
        if counts is None:
            return {}
        gradients, staleness = counts.gradients - self._before[0], counts.staleness - self._before[1]
        self._before = counts.gradients, counts.staleness
        return {"staleness_mean": staleness / max(1.0, gradients), "staleness_max": counts.largest_staleness}


def among_the_living(communicator: Communicator, action: Callable[[], Result]) -> Result:
    """Runs a collective before there is a job, again if a worker is lost meanwhile; see `AsynchronousUpdates.run`."""
    while True:
        try:
            return action()  # COLLECTIVE
        except RanksChanged:
            assert isinstance(communicator, LivingWorkers)
            communicator.roll_call()  # COLLECTIVE


def _living(job: Job) -> LivingWorkers:
    communicator = job.communicator
    assert isinstance(communicator, LivingWorkers)
    return communicator


def _report_lost(job: Job, lost: int, env_steps: int) -> None:
    """Reports on rank 0 and in the metrics that workers were lost."""
    workers = job.communicator.size
    job.records.display.warn(
        f"{lost} worker(s) lost; {workers} continue, without the transitions and environments of the lost. A resume on "
        "all ranks starts these environments again"
    )
    record = {"ranks": workers, "left": lost, "came": 0, "rolled_back_env_steps": 0}
    job.records.write("ranks", env_steps, record)
