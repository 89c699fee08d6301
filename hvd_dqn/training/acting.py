"""One rank's acting: its environments, its epsilon-greedy policy, the episodes that have ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hvd_dqn.counters import Counters
from hvd_dqn.envs.collector import Collector, Episode
from hvd_dqn.learner.action_values import ActionValues
from hvd_dqn.learner.policy import Exploration, epsilon_greedy_actions
from hvd_dqn.training.faults import describe
from hvd_dqn.transition import Transition


class Collected(NamedTuple):
    """One step in each of this rank's environments."""

    transitions: Transition | None
    """[N]; None after a fault."""
    episodes: list[Episode]
    """Those that ended in this step."""
    fault: str | None = None
    """What went wrong on this rank, None if nothing did."""


@dataclass
class Acting:
    """Everything that a rank needs to act."""

    collector: Collector
    exploration: Exploration
    values: ActionValues
    rng: np.random.Generator
    """Of the policy."""
    finished_episodes: list[tuple[int, float, int]] = field(default_factory=list)
    """(env step, return, length) of episodes that ended on this rank since the last log line."""
    fault: str | None = None
    """What went wrong in an environment. No environment is stepped after it; the ranks end the job together."""

    def choose_actions(self, counters: Counters) -> np.ndarray:
        """Returns epsilon-greedy actions int64 [E] for the present observations."""
        epsilon = self.exploration.epsilon(counters.env_steps, counters.episodes)
        q = self.values(self.collector.observation, counters.env_steps)  # [E, A]
        return epsilon_greedy_actions(q, self.exploration.per_env(epsilon), self.rng)  # [E]

    def step(self, actions: np.ndarray, env_steps: int) -> Collected:
        """Takes one step in each of this rank's environments; what goes wrong becomes a fault, which stays.

        Args:
          actions: int [E].
          env_steps: global env steps after this step.
        """
        if self.fault is None:
            try:
                transitions, episodes = self.collector.step(actions)
            except Exception as error:
                self.fault = describe(error)
        if self.fault is not None:
            return Collected(None, [], self.fault)
        self.finished_episodes += [(env_steps, *episode) for episode in episodes]
        return Collected(transitions, episodes)
