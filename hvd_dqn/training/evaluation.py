"""Greedy evaluation over all ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hvd_dqn.distributed.agreement import raise_fault_on_any_rank
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.watchdog import Watchdog
from hvd_dqn.envs.greedy import GreedyEvaluation
from hvd_dqn.learner.action_values import ActionValues
from hvd_dqn.learner.learner import Vector
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.seeding import integer_seed
from hvd_dqn.training.faults import describe

_SLICE_SECONDS = 1.0
"""The ranks synchronise this often, so that no watchdog ends a rank that waits for another's long episodes."""


class Played(NamedTuple):
    """The outcomes of N episodes, equal on all ranks; see `hvd_dqn.envs.greedy.Outcome`."""

    returns: np.ndarray  # float64 [N]
    start_values: np.ndarray  # float64 [N]
    discounted_returns: np.ndarray  # float64 [N]

    def value_fields(self) -> dict[str, float]:
        """Returns what a record of evaluations holds of action values, and of what they estimate."""
        means = float(self.start_values.mean()), float(self.discounted_returns.mean())
        return dict(zip(("start_value", "discounted_return"), means, strict=True))


@dataclass
class Evaluation:
    """One rank's share of greedy evaluations, and the best score so far."""

    communicator: Communicator
    watchdog: Watchdog
    stop: StopRequest
    play: GreedyEvaluation
    values: ActionValues
    seed: int
    tick: Callable[[str, int, int], None]
    """Shows on rank 0, after a silence, how far an evaluation is."""
    warn: Callable[[str], None]
    best_score: float | None = None
    improved_at: int | None = None
    """Env steps of the evaluation that was the best so far, if it was made by this process."""
    _latest: tuple[int, float] | None = None
    _reported: bool = False

    def evaluate(self, parameters: Vector, stream: str, index: int, episodes: int) -> Played | None:
        """Plays greedy episodes, split over the ranks; a collective.

        Args:
          parameters: the weights [P] to evaluate, equal on all ranks.
          stream: name of the seeds' stream, so that evaluations never share seeds with training or each other.
          index: a number that is different for each evaluation of the stream.
          episodes: number of episodes over all ranks.

        Returns:
          The outcomes in the order of the episodes; None if a rank was asked to stop before the end.

        Raises:
          JobFault: on all ranks, if an environment fails on any.
        """
        rank, size = self.communicator.rank, self.communicator.size
        self.values.load(parameters)
        self.play.begin([(i, integer_seed(self.seed, stream, index, i)) for i in range(rank, episodes, size)])
        while True:
            self.watchdog.beat("evaluating")
            self.stop.keep_handlers()
            fault = None
            try:
                remaining = self.play.run(_SLICE_SECONDS)
            except Exception as error:
                fault, remaining = describe(error), 0
            own = [float(remaining), float(fault is not None), float(self.stop.requested)]
            unfinished, faults, stops = self.communicator.sum(np.array(own))  # COLLECTIVE
            if faults:
                raise_fault_on_any_rank(self.communicator, fault)  # COLLECTIVE
            if stops:
                return None
            self.tick("evaluation episodes", episodes - round(unfinished), episodes)
            if not unfinished:
                break
        outcomes: dict[str, list[float]] = {}
        cut_off = 0
        for part, own_cut_off in self.communicator.gather_json([self.play.outcomes(), self.play.cut_off]):  # COLLECTIVE
            outcomes |= part
            cut_off += own_cut_off
        self._report_cut_off(cut_off, episodes)
        return Played(*np.array([outcomes[str(i)] for i in range(episodes)], np.float64).T)

    def note(self, env_steps: int, score: float) -> None:
        """Keeps the mean return of an evaluation made at this step."""
        self._latest = env_steps, score
        if self.best_score is None or score > self.best_score:
            self.best_score, self.improved_at = score, env_steps

    def score_at(self, env_steps: int) -> float | None:
        """Returns the mean return of the evaluation made at this very step, None if there was none."""
        return self._latest[1] if self._latest is not None and self._latest[0] == env_steps else None

    def _report_cut_off(self, cut_off: int, episodes: int) -> None:
        """Warns once of episodes that did not end by themselves."""
        if cut_off and not self._reported:
            self._reported = True
            self.warn(
                f"{cut_off} of {episodes} evaluation episodes did not end within --evaluation-step-limit and were cut "
                "off there; their returns are those so far (not reported again)"
            )
