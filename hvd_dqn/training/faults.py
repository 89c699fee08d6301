"""The words for a fault that one rank reports to all."""

from __future__ import annotations

import traceback
from typing import NoReturn

from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import JobFault, UserError


def describe(error: Exception) -> str:
    """Returns the message of an environment's fault, or the traceback of an error of ours."""
    return str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error)).rstrip()


def where_not_finite(communicator: Communicator, local_finite: bool) -> str:
    """Returns in words whose part of a gradient was not finite; a collective."""
    culprits = [rank for rank, finite in enumerate(communicator.gather_json(local_finite)) if not finite]  # COLLECTIVE
    return f"on rank(s) {', '.join(map(str, culprits))}" if culprits else "when summed over the ranks"


def raise_not_finite(communicator: Communicator, update: int, local_finite: bool, allowed: int) -> NoReturn:
    """Ends the job after a gradient that was not finite; a collective.

    Args:
      communicator: the job's.
      update: its number, skipped ones counted, equal on all ranks.
      local_finite: whether this rank's part of the gradient was finite.
      allowed: how many such updates --skip-nonfinite lets pass.

    Raises:
      JobFault: on all ranks, naming the ranks and the step.
    """
    where = where_not_finite(communicator, local_finite)  # COLLECTIVE
    raise JobFault(not_finite(f"the gradient of learner step {update}", where, allowed))


def not_finite(what: str, where: str, allowed: int) -> str:
    """Returns the message of a gradient that was not finite.

    Args:
      what: the gradient.
      where: on which ranks.
      allowed: how many such updates --skip-nonfinite lets pass.
    """
    before = f", after {allowed} that --skip-nonfinite has let pass" if allowed else ""
    return (
        f"{what} is not finite {where}{before}; it was not applied and nothing was "
        "saved after it. Lower --learning-rate (with --precision float16 --loss-scale too), clip with --max-grad-norm, "
        "or look at the environment's rewards; "
        "--resume continues from the last checkpoint, and --skip-nonfinite N lets N such steps pass."
    )


def raise_weights_not_finite(communicator: Communicator, update: int, local_finite: bool) -> NoReturn:
    """Ends the job before weights that are not finite are averaged; a collective.

    Args:
      communicator: the job's.
      update: the number of the latest one, skipped ones counted, equal on all ranks.
      local_finite: whether this rank's own weights and optimizer state are finite.

    Raises:
      JobFault: on all ranks, naming the ranks and the step.
    """
    where = where_not_finite(communicator, local_finite)  # COLLECTIVE
    raise JobFault(
        f"the weights or the optimizer state after learner step {update} are not finite {where}; they were not "
        "averaged, and nothing was saved after that. Lower --learning-rate, or clip with --max-grad-norm; --resume "
        "continues from the last checkpoint."
    )
