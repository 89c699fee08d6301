"""The reports that rank 0 prints before and after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.statistics import bootstrap_interval


def start_report(sizes: dict[str, Any]) -> str:
    """Formats the start report, one line per entry."""
    width = max(len(name) for name in sizes)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in sizes.items())


def closing_summary(
    *,
    run_directory: Path,
    seconds: float,
    env_steps: int,
    learner_steps: int,
    best_env_steps: int | None,
    returns: np.ndarray,
    env_id: str,
    ranks: int,
) -> tuple[str, dict[str, Any]]:
    """Formats the closing summary.

    Args:
      run_directory: the run directory.
      seconds: wall time of this process.
      env_steps: global env steps of the run.
      learner_steps: updates of the run.
      best_env_steps: env steps of the evaluated checkpoint; None if the final weights were used.
      returns: float [N], greedy returns of the final episodes.
      env_id: the environment, for the heading.
      ranks: number of ranks, for the command that resumes the run bit for bit.

    Returns:
      The text, and the same numbers as a metrics record.
    """
    low, high = bootstrap_interval(returns)
    mean = float(returns.mean())
    which = "final weights" if best_env_steps is None else f"best checkpoint (env step {best_env_steps:,})"
    launcher = f"horovodrun -np {ranks} python" if ranks > 1 else "python"
    text = "\n".join(
        [
            "",
            f"Greedy evaluation of the {which} over {len(returns)} new episodes of {env_id}:",
            f"  mean return {mean:.2f}, 95 % confidence interval {low:.2f} to {high:.2f}, "
            f"min {returns.min():.2f}, max {returns.max():.2f}",
            f"The run has {env_steps:,} env steps and {learner_steps:,} learner steps. This job took {seconds:.1f} s.",
            f"Run directory: {run_directory}",
            "Next:",
            f"  tensorboard --logdir {run_directory}",
            f"  {launcher} train.py --resume {run_directory} --total-env-steps {2 * env_steps}",
        ]
    )
    record = {"mean_return": mean, "low": low, "high": high, "episodes": len(returns), "seconds": seconds}
    return text, record
