"""One rank's view of the job: the parts that the loop works with, and the hooks that run after each iteration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from hvd_dqn.checkpoint.session import CheckpointSession
from hvd_dqn.config import Config
from hvd_dqn.counters import Counters
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.learner.learner import Learner, Report
from hvd_dqn.replay.base import Replay
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.acting import Acting, Collected
from hvd_dqn.training.evaluation import Evaluation
from hvd_dqn.training.records import Contribution, Records
from hvd_dqn.training.signals import Signals

Result = TypeVar("Result")


class Update(NamedTuple):
    """What learner steps report, equal on all ranks."""

    report: Report
    """Of the steps since the ranks last synchronised; of no steps if they did not in this iteration."""
    skipped: int
    """Updates of these that were not applied because their gradient was not finite."""
    signals: Signals | None
    """Summed over the ranks, since they last synchronised; None if they did not in this iteration. Nothing is
    collective before they synchronise again."""


class Updates:
    """When an iteration's learner steps run, and what else follows from it."""

    contributions: Sequence[Contribution] = ()
    """Adds to the training records."""

    def target_update_period(self, configured: int) -> int:
        """Returns the learner steps between two copies of online to target parameters in the loop; 0 for none."""
        return configured

    def run(self, job: Job, action: Callable[[], Result]) -> Result:
        """Runs a collective apart from the learner steps, and returns this rank's result."""
        return action()

    def begin(self, job: Job) -> None:
        """Starts the learner steps that overlap with collecting, if any; then a collective."""

    def wait(self) -> None:
        """Returns once nothing reads the replay any more.

        Raises:
          JobFault: on all ranks, if a gradient was not finite.
        """

    def finish(self, job: Job, own: Signals) -> Update:
        """Runs the other learner steps and sums the ranks' signals; a collective, also where no step is due.

        Raises:
          JobFault: on all ranks, if a gradient was not finite.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Waits for learner steps that are still running."""


@dataclass
class Learning:
    """Everything that a rank needs to learn."""

    learner: Learner
    chosen: str
    """tensorflow or native."""
    replay: Replay
    rng: np.random.Generator
    """Of the replay."""
    batch_size_per_rank: int
    updates: Updates
    target_update_period: int
    """Learner steps between two copies of the online to the target network; 0 where parameter servers make them."""
    long_seconds: float = math.inf
    """Of an iteration's learner steps that are better made in several calls; infinite where no watchdog waits."""
    last_seconds: float = 0.0
    """Of this rank's latest learner steps; 0 before them."""
    iterations: int = 0
    """With learner steps, since this process began."""
    one_by_one: bool = False
    """Whether each learner step is a call of its own. Equal on all ranks."""


class Iteration(NamedTuple):
    """What the hooks know of an iteration; all but `fault` is equal on all ranks."""

    env_steps_before: int
    """At the last iteration in which the ranks synchronised."""
    env_steps: int
    last: bool
    """Whether the run's env steps are done."""
    signals: Signals
    """Summed over the ranks."""
    fault: str | None
    """This rank's own."""


class Hook(Protocol):
    """Something that happens after some iterations. Hooks run in the order of their list."""

    def due(self, job: Job, iteration: Iteration) -> bool:
        """Returns whether to run now; decided by what is equal on all ranks, so that all ranks decide alike."""

    def run(self, job: Job, iteration: Iteration) -> bool:
        """Runs, as a collective; returns False if the job is to stop here."""


@dataclass
class Job:
    """Built by `assemble`, one on each rank."""

    config: Config
    communicator: Communicator
    watchdog: Watchdog
    stop: StopRequest
    directory: RunDirectory
    """Written by rank 0, but for traces and marks of waiting ranks."""
    acting: Acting
    learning: Learning
    evaluation: Evaluation
    checkpoints: CheckpointSession
    records: Records
    hooks: list[Hook]
    counters: Counters = field(default_factory=Counters)
    met: Counters = field(default_factory=Counters)
    """A copy of the counters when the ranks last synchronised: what became due since then is done when they do next."""
    stream: tuple[int, ...] = ()
    """Part of the address of each random stream: other than () once an elastic job's ranks have changed."""
    hosts_changed: Callable[[], bool] = lambda: False
    """Returns whether this rank was notified of other hosts for the job."""

    def run_hooks(self, signals: Signals, fault: str | None) -> bool:
        """Runs the hooks that are due, a collective where one is; returns False if the job is to stop here."""
        env_steps = self.counters.env_steps
        total = self.config.job.total_env_steps
        last = env_steps >= total
        self.records.display.tick("env steps", env_steps, total)
        self.records.warn_of_long_iterations()
        iteration = Iteration(self.met.env_steps, env_steps, last, signals, fault)
        self.met = dataclasses.replace(self.counters)
        run, due = self.learning.updates.run, (hook for hook in self.hooks if hook.due(self, iteration))
        return all(run(self, partial(hook.run, self, iteration)) for hook in due)  # COLLECTIVE

    def signals(self, collected: Collected) -> Signals:
        """Returns this rank's own signals at the end of an iteration."""
        self.stop.keep_handlers(every_seconds=0.1)
        return Signals(
            stop=self.stop.requested,
            stop_at_checkpoint=self.stop.at_checkpoint,
            fault=collected.fault is not None,
            episodes=len(collected.episodes),
            save_failed=self.checkpoints.failed,
            hosts_changed=self.hosts_changed(),
            slow=self.learning.last_seconds > self.learning.long_seconds,
        )

    @property
    def generators(self) -> dict[str, np.random.Generator]:
        """Returns this rank's random generators by name; environments have their own."""
        return {"policy": self.acting.rng, "replay": self.learning.rng}

    def shared_state(self) -> dict[str, Any]:
        """Returns what all ranks share apart from the learner, as JSON-ready copies."""
        return {
            "counters": self.counters.as_dict(),
            "recent_episodes": self.records.recent.state(),
            "averages": self.records.averages.state(),
            "best_score": self.evaluation.best_score,
            "largest_priority": self.learning.replay.largest_priority,
        }

    def load_shared_state(self, state: dict[str, Any]) -> None:
        """Puts back what `shared_state` returned.

        Raises:
          KeyError, TypeError, ValueError, AttributeError, OverflowError: if it is something else.
        """
        self.counters = Counters.from_dict(state["counters"])
        self.counters.change_train_period(self.config.learner.train_period)
        self.met = dataclasses.replace(self.counters)
        self.records.recent.load(state["recent_episodes"])
        self.records.averages.load(state["averages"])
        self.evaluation.best_score = None if state["best_score"] is None else float(state["best_score"])
        self.learning.replay.largest_priority = float(state["largest_priority"])
        self.learning.learner.step = self.counters.learner_steps
        self.records.restart_speed(self.counters)
