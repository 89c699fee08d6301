"""The hooks of the training loop, in the order in which they run after an iteration.

Whether a hook runs follows from counters and signals that are equal on all ranks. Each `run` is a collective.
"""

from __future__ import annotations

from hvd_dqn.checkpoint.save import settle, settle_or_warn
from hvd_dqn.config import Config
from hvd_dqn.counters import crossed
from hvd_dqn.distributed.agreement import raise_fault_on_any_rank, raise_on_any_rank
from hvd_dqn.training.environments import keeps_episodes, restart_environments
from hvd_dqn.training.job import Hook, Iteration, Job
from hvd_dqn.training.log import log_evaluation, log_training
from hvd_dqn.training.saving import save


def make_hooks(config: Config) -> list[Hook]:
    """Returns the hooks of a job whose ranks stay the same."""
    return [
        RaiseFaults(),
        SetPace(),
        ReportFailedSave(),
        Log(config.job.log_period),
        Stop(),
        Evaluate(config.evaluation.evaluation_period),
        Record(config.evaluation.record_period),
        SaveCheckpoint(config.job.checkpoint_period),
    ]


class RaiseFaults:
    """Ends the job on all ranks if one of them has a fault."""

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether any rank has a fault."""
        return iteration.signals.fault > 0

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Raises JobFault on all ranks."""
        raise_fault_on_any_rank(job.communicator, iteration.fault)  # COLLECTIVE
        return True


class SetPace:
    """Makes an iteration's learner steps in one call, or one by one while a rank is slow."""

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether the pace is to change."""
        return job.learning.one_by_one != (iteration.signals.slow > 0)

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Changes it."""
        job.learning.one_by_one = iteration.signals.slow > 0
        return True


class ReportFailedSave:
    """Reports a checkpoint that a rank could not write; training continues."""

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether any rank has failed."""
        return iteration.signals.save_failed > 0

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Waits for the other ranks' parts and reports the failure."""
        settle_or_warn(job.checkpoints, job.records.display.warn)  # COLLECTIVE
        return True


class Log:
    """Writes a line of metrics every `period` env steps and at the end."""

    def __init__(self, period: int) -> None:
        """Takes the global env steps between two lines."""
        self.period = period

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether the period has passed."""
        return iteration.last or crossed(iteration.env_steps_before, iteration.env_steps, self.period)

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Compares the ranks' weights, then gathers and logs."""
        log_training(job)  # COLLECTIVE
        return True


class Stop:
    """Stops the job if a rank was asked to."""

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether any rank was."""
        return iteration.signals.stop > 0

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Stops."""
        return False


class Evaluate:
    """Plays greedy episodes every `period` env steps and at the end; a period of 0 never does."""

    def __init__(self, period: int) -> None:
        """Takes the global env steps between two evaluations."""
        self.period = period

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether the period has passed."""
        due = crossed(iteration.env_steps_before, iteration.env_steps, self.period)
        return due or (iteration.last and self.period > 0)

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Evaluates and logs; returns False if a rank was asked to stop meanwhile."""
        episodes = job.config.evaluation.evaluation_episodes
        with job.records.pause_speed():
            played = job.evaluation.evaluate(
                job.learning.learner.online, "evaluation", iteration.env_steps, episodes
            )  # COLLECTIVE
            if played is None:
                return False
            job.evaluation.note(iteration.env_steps, float(played.returns.mean()))
            log_evaluation(job, played)
        return True


class Record:
    """Starts a film on rank 0 every `period` env steps; a period of 0 never does. No collective: no rank waits."""

    def __init__(self, period: int) -> None:
        """Takes the global env steps between two films."""
        self.period = period

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether the period has passed."""
        return crossed(iteration.env_steps_before, iteration.env_steps, self.period)

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Starts a film, unless the one before is not finished."""
        job.records.recorder.begin(job.learning.learner.online, iteration.env_steps)
        return True


class SaveCheckpoint:
    """Begins a checkpoint every `period` env steps, at a new best evaluation, and at the end."""

    def __init__(self, period: int) -> None:
        """Takes the global env steps between two checkpoints."""
        self.period = period

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether the period has passed or the evaluation of this iteration was the best."""
        due = crossed(iteration.env_steps_before, iteration.env_steps, self.period)
        return due or iteration.last or job.evaluation.improved_at == iteration.env_steps

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Saves; returns False if a rank was asked to stop at a checkpoint."""
        with job.records.pause_speed():
            save(job, job.evaluation.score_at(iteration.env_steps))  # COLLECTIVE
            if iteration.last:
                settle(job.checkpoints)  # COLLECTIVE
            elif iteration.signals.stop_at_checkpoint:
                return False
            if not keeps_episodes(job):
                raise_on_any_rank(job.communicator, lambda: restart_environments(job))  # COLLECTIVE
        return True
