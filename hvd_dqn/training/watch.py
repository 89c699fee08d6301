"""Films a trained agent of a run, and reports what was filmed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvd_dqn.config import Config
from hvd_dqn.distributed.runtime import Runtime
from hvd_dqn.errors import EXIT_DONE, EXIT_REQUEUE
from hvd_dqn.locations import is_url
from hvd_dqn.run.directory import RunDirectory
from hvd_dqn.run.report import episodes_played
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.training.film import Shooting, Shot, episode_seeds, player, shoot
from hvd_dqn.training.trained import load_trained
from hvd_dqn.video.writer import Film, Gif, Mp4, Window


@dataclass(frozen=True)
class Wanted:
    """How to film."""

    which: str
    """best, last, or the env steps of a checkpoint."""
    episodes: int
    epsilon: float
    """Probability of a random action."""
    step_limit: int
    """Steps after which an episode is cut off, 0 for no limit."""
    rate: float
    """Steps in a second of the film; 0 for the environment's own speed."""
    format: str
    """mp4, gif or window."""
    output: Path | None
    """None: in the run directory."""
    most_bytes: int
    """Of a GIF."""


def watch_run(place: str, config: Config, wanted: Wanted, runtime: Runtime, stop: StopRequest) -> int:
    """Films episodes of a run's agent and prints what was filmed.

    Args:
      place: the run directory or checkpoint path.
      config: the configuration of the run.
      wanted: how to film.
      runtime: this process, up.
      stop: the signals' request to stop.

    Returns:
      The exit code.

    Raises:
      UserError: if there is no such checkpoint, its environment has no pictures, or the film cannot be written.
    """
    trained = load_trained(place, config, wanted.which, runtime.communicator)
    for line in trained.passed_over:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    named = f"{trained.env_steps:012d}" + (f"-{wanted.which}" if not wanted.which.isdigit() else "")
    path = wanted.output or _videos_of(place) / f"{named}.{wanted.format}"
    path = Path(os.path.realpath(path.parent)) / path.name if wanted.output else path

    def open_films(size: tuple[int, int], rate: float) -> Sequence[Film]:
        if wanted.format == "window":
            return [Window(size, rate, f"{config.environment.env}: {player(trained.env_steps)}")]
        return [Gif(path, size, rate, wanted.most_bytes) if wanted.format == "gif" else Mp4(path, size, rate)]

    shooting = Shooting(
        trained,
        player(trained.env_steps),
        episode_seeds(config.job.seed, "evaluate", 0, wanted.episodes),
        wanted.epsilon,
        wanted.step_limit,
        wanted.rate,
    )
    shot = shoot(shooting, open_films, lambda: stop.requested)
    if shot is None:
        return EXIT_REQUEUE
    if wanted.format != "window":
        print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB, {shot.seconds:.1f} s")
    print(_text(shot, config.environment.env, trained.env_steps, wanted))
    return EXIT_DONE


def _videos_of(place: str) -> Path:
    """Returns the folder of a run's films: in the working folder for one in an object store."""
    return Path.cwd() / "videos" if is_url(place) else RunDirectory(Path(place)).videos


def _text(shot: Shot, env_id: str, env_steps: int, wanted: Wanted) -> str:
    """Returns what was played."""
    played = episodes_played(len(shot.returns), wanted.epsilon).replace("1 episodes", "1 episode")
    played = played.replace("1 greedy episodes", "1 greedy episode") if len(shot.returns) == 1 else played
    lines = [f"{played} of {env_id} at env step {env_steps:,}"]
    lines += [
        f"  return {value:,.2f} in {length:,} steps" for value, length in zip(shot.returns, shot.lengths, strict=True)
    ]
    if shot.cut_off:
        lines.append(f"  {shot.cut_off} cut off at {wanted.step_limit:,} steps (--max-steps)")
    return "\n".join(lines)
