"""hvd-dqn watch: films episodes of a trained agent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvd_dqn.cli.evaluate import OfEpisodes, place_and_checkpoint
from hvd_dqn.cli.parsing import parse_dataclass
from hvd_dqn.cli.ranks import refuse, require_one_process, run_to_exit
from hvd_dqn.config import Config
from hvd_dqn.distributed.launcher import read_launch
from hvd_dqn.distributed.runtime import prepare_environment, start
from hvd_dqn.errors import UserError
from hvd_dqn.run.stopping import StopRequest
from hvd_dqn.video.writer import draw_without_display, find_ffmpeg, require_display, require_video

PROGRAM = "hvd-dqn watch"
DESCRIPTION = """Films episodes of a trained agent: the frame, and the value of every action next to it.

  hvd-dqn watch runs/LunarLander-v3/first                          its best checkpoint, one episode, an MP4
  hvd-dqn watch runs/LunarLander-v3/first --episodes 3 --fps 100   three episodes at twice the speed
  hvd-dqn watch runs/LunarLander-v3/first --format gif             an animated GIF, for which ffmpeg is not needed
  hvd-dqn watch s3://bucket/run --checkpoint last --output a.mp4   the newest checkpoint, another place
  hvd-dqn watch runs/LunarLander-v3/first --human                  in a window

Episodes are the first ones of `hvd-dqn evaluate`: the same seeds, the same returns."""


@dataclass(frozen=True, kw_only=True)
class Asked(OfEpisodes):
    """What is asked for."""

    episodes: int = 1
    """Episodes in the film."""
    format: Literal["mp4", "gif"] = "mp4"
    """mp4: H.264, which browsers play. gif: an animated GIF, with pictures left out until it fits --gif-megabytes."""
    output: str = ""
    """File to write. Empty: videos/<env steps>-<checkpoint> in the run directory."""
    fps: float = 0.0
    """Steps in a second of the film. 0: the environment's own speed."""
    max_steps: int = 0
    """Steps after which an episode is cut off. 0: the run's --evaluation-step-limit."""
    gif_megabytes: float = 8.0
    """Most megabytes of a GIF."""
    human: bool = False
    """Show a window in place of writing a file."""


def read(arguments: Sequence[str], *, quiet: bool = False) -> tuple[Asked, str, str, Config]:
    """Returns what is asked for, the run, which of its checkpoints, and its configuration.

    Raises:
      UserError: if an argument is invalid, there is no such run, or a film cannot be made here.
      SystemExit: with code 0 after --help.
    """
    asked: Asked = parse_dataclass(Asked, arguments, PROGRAM, DESCRIPTION, quiet=quiet)
    run, which = place_and_checkpoint(os.path.expanduser(asked.run), asked.checkpoint)
    for flag, value, holds, remedy in (
        ("--episodes", asked.episodes, asked.episodes >= 1, "give at least 1"),
        ("--fps", asked.fps, asked.fps == 0 or 1 <= asked.fps <= 1000, "give a number from 1 to 1000"),
        ("--max-steps", asked.max_steps, asked.max_steps >= 0, "give 0 or more"),
        ("--gif-megabytes", asked.gif_megabytes, asked.gif_megabytes > 0, "give a positive number"),
    ):
        if not holds:
            raise UserError(f"{flag} is {value}: {remedy}")
    config = asked.config(run, "cpu", quiet=quiet)
    require_video(PROGRAM)
    if asked.human:
        require_display()
    elif asked.format == "mp4":
        find_ffmpeg()
    return asked, run, which, config


def main(arguments: Sequence[str]) -> int:
    """Films on this process and returns the exit code."""
    launch, stop = read_launch(), StopRequest()
    stop.install()
    try:
        asked, run, which, config = read(arguments, quiet=launch.rank > 0)
        require_one_process(launch, "a film is made")
    except UserError as error:
        return refuse(PROGRAM, error, launch, stop)
    if not asked.human:
        draw_without_display()
    os.environ |= {"SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    threads = prepare_environment(launch, 0, 0.0, bind_to_cores=False)
    runtime = start(launch, threads, "cpu", timeline=False)
    from hvd_dqn.training.watch import Wanted, watch_run  # NumPy and TensorFlow: after the thread pools' sizes are set

    wanted = Wanted(
        which=which,
        episodes=asked.episodes,
        epsilon=config.evaluation.evaluation_epsilon,
        step_limit=asked.max_steps or config.evaluation.evaluation_step_limit,
        rate=asked.fps,
        format="window" if asked.human else asked.format,
        output=Path(os.path.expanduser(asked.output)) if asked.output else None,
        most_bytes=round(asked.gif_megabytes * 1e6),
    )
    return run_to_exit(PROGRAM, runtime.communicator, lambda: watch_run(run, config, wanted, runtime, stop))
