"""The counters that drive the job. They are equal on all ranks, and so are all decisions based on them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

LARGEST = 2**53
"""No counter exceeds it: the ranks sum their counts as float64."""


@dataclass
class Counters:
    """Progress of the job, in global amounts."""

    env_steps: int = 0
    """Env steps over all ranks. A step that only resets an environment counts, too."""
    learner_steps: int = 0
    """Optimizer updates."""
    skipped_updates: int = 0
    """Updates skipped because their gradient was not finite (--skip-nonfinite)."""
    target_updates: int = 0
    """Copies of the online network to the target network."""
    episodes: int = 0
    """Finished episodes over all ranks."""
    learning_from_env_step: int = 0
    """Env step at which learning starts, or starts again after a resume."""
    learning_from_learner_step: int = 0
    """Learner steps done or skipped when learning starts, or starts again."""
    train_period: int = 0
    """Env steps per learner step, 0 before it is known."""

    @property
    def updates_tried(self) -> int:
        """Returns the learner steps done or skipped."""
        return self.learner_steps + self.skipped_updates

    def learner_steps_due(self, train_period: int) -> int:
        """Returns K, the number of learner steps that are due and not done yet."""
        earned = max(0, self.env_steps - self.learning_from_env_step) // train_period
        return self.learning_from_learner_step + earned - self.updates_tried

    def wait_for_replay(self, learning_starts: int) -> None:
        """Delays learning by `learning_starts` env steps, during which the replay fills."""
        self.learning_from_env_step = self.env_steps + learning_starts
        self.learning_from_learner_step = self.updates_tried

    def change_train_period(self, train_period: int) -> None:
        """Counts learner steps by another period from here on; those that are due already stay due."""
        if self.train_period not in (0, train_period):
            due = self.learner_steps_due(self.train_period)
            self.learning_from_env_step = max(self.learning_from_env_step, self.env_steps)
            self.learning_from_learner_step = self.updates_tried + due
        self.train_period = train_period

    def count_from_here(self) -> None:
        """Regards learner steps as done that are due by now: those of asynchronous workers follow no global count."""
        if self.env_steps >= self.learning_from_env_step:
            self.learning_from_env_step = self.env_steps
            self.learning_from_learner_step = self.updates_tried

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> Counters:
        """Parses the result of `as_dict`. Missing counters are 0.

        Raises:
          TypeError, ValueError: if the values are not counters.
        """
        if any(type(value) is not int or not 0 <= value <= LARGEST for value in values.values()):
            raise ValueError(f"invalid counters: {values}")
        return cls(**values)

    def as_dict(self) -> dict[str, int]:
        """Returns the counters as JSON-ready values."""
        return dataclasses.asdict(self)


def crossed(before: int, after: int, period: int) -> bool:
    """Returns True if a multiple of `period` lies in (before, after]. False for a period of 0."""
    return period > 0 and after // period > before // period
