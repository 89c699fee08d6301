"""What a rank tells the others of its faults."""

from __future__ import annotations

import traceback

from hvd_dqn.errors import JobFault, UserError
from hvd_dqn.parallel.ranks import Ranks


def describe(error: Exception) -> str:
    """Returns a UserError's message, or the traceback of anything else (an environment's own exception)."""
    if isinstance(error, UserError):
        return str(error)
    return "the environment raised an exception:\n" + "".join(traceback.format_exception(error)).rstrip()


def raise_not_finite(ranks: Ranks, learner_step: int, local_finite: bool) -> None:
    """Ends the job after a gradient that was not finite; a collective.

    Args:
      ranks: the ranks.
      learner_step: the last update that was applied, equal on all ranks.
      local_finite: whether this rank's part of the gradient was finite.

    Raises:
      JobFault: on all ranks, naming the ranks and the step.
    """
    culprits = [rank for rank, finite in enumerate(ranks.gather_json(local_finite)) if not finite]  # COLLECTIVE
    where = f"on rank(s) {', '.join(map(str, culprits))}" if culprits else "when summed over the ranks"
    raise JobFault(
        f"the gradient of learner step {learner_step + 1} is not finite {where}; it was not applied and nothing was "
        "saved after it. Lower --learning-rate, clip with --max-grad-norm, or look at the environment's rewards; "
        "--resume goes on from the last checkpoint."
    )
