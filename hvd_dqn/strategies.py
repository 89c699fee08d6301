"""How ranks learn together (--strategy): what each strategy needs, and what it cannot be combined with."""

from __future__ import annotations

from hvd_dqn.config import Config
from hvd_dqn.errors import UserError


def check_strategy(config: Config) -> None:
    """Checks the flags of the strategies, whatever the ranks.

    Raises:
      UserError: naming the flag, its value and the remedy.
    """
    check_local(config)


def check_local(config: Config) -> None:
    """Checks the flags of local SGD.

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


def describe(config: Config, learner: str, ranks: int) -> str:
    """Returns the strategy as the start report shows it.

    Args:
      config: the configuration.
      learner: tensorflow or native.
      ranks: W.
    """
    if ranks == 1:
        return "none (one rank)"
    if updates_alone(config, ranks):
        period, iteration = config.learner.sync_period, config.environment.num_envs / config.learner.train_period
        rounded = ", rounded up to whole iterations" if period > iteration and period % iteration else ""
        return f"local, averaged every {period} updates of each rank{rounded}"
    return "allreduce, by " + ("MPI_Allreduce" if learner == "native" else "Horovod inside the graph")
