"""How ranks share what they learn, `--strategy`: which options fit which strategy."""

from __future__ import annotations

from hvd_dqn.config import Config
from hvd_dqn.errors import UserError


def check_local(config: Config) -> None:
    """Checks the options of local SGD.

    Raises:
      UserError: naming the flag, its value and the remedy.
    """
    learner = config.learner
    default = type(learner).sync_period
    if learner.strategy != "local" and learner.sync_period != default:
        raise UserError(
            f"--sync-period is for --strategy local, and --strategy is {learner.strategy}: give --strategy local, or "
            f"leave --sync-period at {default}"
        )
    if learner.strategy == "local" and learner.policy_lag:
        raise UserError(
            "--policy-lag 1 overlaps collecting with the updates of --strategy allreduce only: leave --policy-lag or "
            "--strategy local out"
        )


def updates_alone(config: Config, size: int) -> bool:
    """Returns whether each of W ranks makes its updates with its own rows alone. One rank has no others to leave out.

    Args:
      config: the configuration.
      size: W.
    """
    return config.learner.strategy == "local" and size > 1
