"""What the process of --record-period does: it films one episode of an agent that is still being trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hvd_dqn.config import Config
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.errors import UserError
from hvd_dqn.training.film import Shooting, episode_seeds, player, shoot
from hvd_dqn.training.recording import GIF_BYTES, GIF_SECONDS, MOST_STEPS
from hvd_dqn.training.trained import Weights, build_trained
from hvd_dqn.video.writer import Film, Gif, Mp4, find_ffmpeg


def record(
    config: Config,
    parameters: bytes,
    env_steps: int,
    folder: Path,
    communicator: Communicator,
    interrupted: Callable[[], bool],
) -> tuple[dict[str, Any] | None, bytes]:
    """Films one episode into a folder: an MP4, or a GIF where there is no ffmpeg.

    Args:
      config: of the run.
      parameters: float32 [P].
      env_steps: of the run so far.
      folder: of the films.
      communicator: of this process alone.
      interrupted: returns whether to stop before the end.

    Returns:
      The film's path, return and steps, or None if it was interrupted; and a GIF for TensorBoard.

    Raises:
      UserError: if the environment has no pictures or fails, or the film cannot be written.
    """
    online = np.frombuffer(parameters, np.float32)
    agent = build_trained("this run", config, lambda: Weights(online, env_steps, None, []), communicator)
    limit = config.evaluation.evaluation_step_limit
    shooting = Shooting(
        agent,
        player(env_steps),
        episode_seeds(config.job.seed, "recording", env_steps, 1),
        config.evaluation.evaluation_epsilon,
        min(limit, MOST_STEPS) if limit else MOST_STEPS,
        rate=0.0,
    )
    small: list[Gif] = []
    path = folder / f"{env_steps:012d}.mp4"
    try:
        find_ffmpeg()
    except UserError:
        path = path.with_suffix(".gif")

    def open_films(size: tuple[int, int], rate: float) -> Sequence[Film]:
        whole = Mp4(path, size, rate) if path.suffix == ".mp4" else Gif(path, size, rate, 8 * GIF_BYTES)
        small.append(Gif(None, size, rate, GIF_BYTES, GIF_SECONDS))
        return [whole, *small]

    shot = shoot(shooting, open_films, interrupted)
    if shot is None:
        return None, b""
    return {"path": str(path), "return": shot.returns[0], "steps": shot.lengths[0]}, small[0].content
