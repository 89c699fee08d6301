"""How ranks learn together (--strategy): what each strategy needs, and what it cannot be combined with."""

from __future__ import annotations

from hvd_dqn.config import Config
from hvd_dqn.errors import UserError

_OF_STRATEGIES = (
    ("sync_period", 16, ("local",)),
    ("servers", 1, ("ps-sync", "ps-async")),
    ("max_staleness", -1, ("ps-async",)),
    ("staleness_lr", "none", ("ps-async",)),
)
"""Fields of some strategies, their defaults, and the strategies that they are for."""


def uses_servers(config: Config) -> bool:
    """Returns whether some ranks are parameter servers."""
    return config.strategy.strategy.startswith("ps-")


def servers_of(config: Config) -> int:
    """Returns how many ranks are parameter servers."""
    return config.strategy.servers if uses_servers(config) else 0


def is_asynchronous(config: Config) -> bool:
    """Returns whether workers learn without waiting for one another; with --max-staleness 0 they wait."""
    return config.strategy.strategy == "ps-async" and config.strategy.max_staleness != 0


def check_strategy(config: Config) -> None:
    """Checks the flags of the strategies, whatever the ranks.

    Raises:
      UserError: naming the flag, its value and the remedy.
    """
    learner, own = config.learner, config.strategy
    if own.max_staleness < -1:
        raise UserError(f"--max-staleness is {own.max_staleness}: give 0 or more, or -1 for no limit")
    for name, default, strategies in _OF_STRATEGIES:
        if getattr(own, name) != default and own.strategy not in strategies:
            needed = " or ".join(strategies)
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{flag} is for --strategy {needed}, and --strategy is {own.strategy}: give --strategy {needed}, "
                f"or {flag} {default}"
            )
    if own.strategy == "local" and learner.policy_lag:
        raise UserError(
            "--policy-lag 1 overlaps the wait for other ranks with collecting, and the ranks of --strategy local wait "
            "seldom: leave --policy-lag or --strategy local out"
        )
    if not uses_servers(config):
        return
    if learner.learner == "native":
        raise UserError(
            f"--learner native applies the optimizer on every rank, and with --strategy {own.strategy} the "
            "parameter servers apply it: give --learner tensorflow, or leave --learner out"
        )
    if is_asynchronous(config) and learner.policy_lag == 1:
        raise UserError(
            "--policy-lag 1 overlaps the wait for other ranks with collecting, and the workers of --strategy ps-async "
            "do not wait for one another: leave --policy-lag out, or give --strategy ps-sync"
        )


def check_ranks(config: Config, size: int, *, by_mpi: bool, elastic: bool) -> None:
    """Checks whether ranks as they were started can run the strategy.

    Args:
      config: the configuration.
      size: ranks of the job, servers included.
      by_mpi: whether an MPI launcher started them.
      elastic: whether ranks may join and leave.

    Raises:
      UserError: equal on all ranks.
    """
    if not uses_servers(config):
        return
    strategy, servers = config.strategy.strategy, config.strategy.servers
    if elastic:
        raise UserError(
            f"--strategy {strategy} needs ranks that stay the same, and this job is elastic: give --strategy "
            "allreduce, or start it by mpirun; a lost worker of ps-async does not stop the others "
            "(mpirun --enable-recovery)"
        )
    if size > 1 and not by_mpi:
        raise UserError(
            f"--strategy {strategy} sends its messages by MPI, and these ranks were started for Gloo: start them by "
            "mpirun, srun or horovodrun --mpi, or give --strategy allreduce"
        )
    if size <= servers:
        raise UserError(
            f"--strategy {strategy} with --servers {servers} needs at least {servers + 1} ranks, and the job has "
            f"{size}: start it by mpirun -np {servers + 1} or more, or give --strategy allreduce"
        )
    if servers > size - servers:
        raise UserError(
            f"--servers {servers} of {size} ranks leaves {size - servers} to work: more servers than workers wait for "
            f"work; give at most --servers {size // 2}"
        )


def updates_alone(config: Config, size: int) -> bool:
    """Returns whether each of W ranks makes its updates with its own rows alone. One rank has no others to leave out.

    Args:
      config: the configuration.
      size: W.
    """
    return config.strategy.strategy == "local" and size > 1


def describe(config: Config, learner: str, ranks: int) -> str:
    """Returns the strategy as the start report shows it.

    Args:
      config: the configuration.
      learner: tensorflow or native.
      ranks: W.
    """
    own = config.strategy
    if ranks == 1 and not uses_servers(config):
        return "none (one rank)"
    if updates_alone(config, ranks):
        period, iteration = own.sync_period, config.environment.num_envs / config.learner.train_period
        rounded = ", rounded up to whole iterations" if period > iteration and period % iteration else ""
        return f"local, averaged every {period} updates of each rank{rounded}"
    if not uses_servers(config):
        return "allreduce, by " + ("MPI_Allreduce" if learner == "native" else "Horovod inside the graph")
    servers = f"parameter server, {own.servers} rank(s) more that serve"
    if not is_asynchronous(config):
        return f"{servers}, synchronous"
    limit = "any staleness" if own.max_staleness < 0 else f"at most {own.max_staleness} updates ahead of the slowest"
    return f"{servers}, asynchronous, {limit}"
