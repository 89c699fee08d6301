"""Films episodes of a trained agent: plays them as an evaluation does, then draws and writes them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from hvd_dqn.envs.greedy import GreedyEvaluation, greedy_values
from hvd_dqn.envs.pictures import frames_per_second
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.seeding import integer_seed
from hvd_dqn.training.trained import Trained
from hvd_dqn.video.panel import Moment, Panel, Scale
from hvd_dqn.video.writer import Film

_HOLD_SECONDS = 1.5
"""The last picture of an episode stays this long."""
_SLICE_SECONDS = 0.5
_FASTEST = 1
"""Compression of the frames that wait to be drawn; an episode's range of values is known only at its end."""


class Shooting(NamedTuple):
    """What is filmed."""

    agent: Trained
    subtitle: str
    """Which agent plays."""
    seeds: Sequence[int]
    """One of each episode."""
    epsilon: float
    """Probability of a random action."""
    step_limit: int
    """Steps after which an episode is cut off, 0 for no limit."""
    rate: float
    """Steps in a second of the film; 0 for the environment's own speed."""


class Shot(NamedTuple):
    """What was filmed."""

    returns: list[float]
    lengths: list[int]
    """Steps of each episode."""
    cut_off: int
    """Episodes that reached the step limit."""
    seconds: float
    """Of the film."""


@dataclass
class _Episode:
    """One episode: compressed frames [T + 1], and of each step action values [R], chosen rows and the reward."""

    frame_shape: tuple[int, ...] = ()
    frames: list[bytes] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    chosen: list[tuple[int, ...]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def take(self, frame: Any) -> None:
        if self.frame_shape not in ((), frame.shape):
            raise UserError(f"render() returned frames of shapes {self.frame_shape} and {frame.shape}: give all one")
        self.frame_shape = frame.shape
        self.frames.append(zlib.compress(frame.tobytes(), _FASTEST))

    def moments(self) -> Iterator[Moment]:
        """Yields the moment of each step, and that of the end."""
        total = 0.0
        for step, packed in enumerate(self.frames):
            over = step == len(self.chosen)
            known = min(step, len(self.chosen) - 1)
            frame = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(self.frame_shape)
            yield Moment(frame, self.values[known], self.chosen[known], total, step, over)
            total += 0.0 if over else self.rewards[step]


class _Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that keeps what an episode shows."""

    def __init__(self, env: gym.Env[Any, Any], spaces: Spaces) -> None:
        super().__init__(env)
        self._has_row = spaces.valid_bins
        self._first_rows = np.cumsum((0, *spaces.joint_bins[:-1]))
        """Row of each joint's first bin; [0] for Discrete actions."""
        self.episode = _Episode()
        self.values: np.ndarray | None = None
        """float32 [A] or [J, A], of the present observation."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.episode = _Episode(self.episode.frame_shape)
        self.episode.take(self.env.render())
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.values is not None
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.episode.best.append(float(greedy_values(self.values[None])[0]))
        self.episode.values.append(self.values.ravel() if self._has_row is None else self.values[self._has_row])
        self.episode.chosen.append(tuple(int(row) for row in self._first_rows + action))
        self.episode.rewards.append(float(reward))
        self.episode.take(self.env.render())
        return observation, reward, terminated, truncated, info


def shoot(
    shooting: Shooting,
    open_films: Callable[[tuple[int, int], float], Sequence[Film]],
    interrupted: Callable[[], bool] = lambda: False,
) -> Shot | None:
    """Plays the episodes and writes them as one film.

    Args:
      shooting: what is filmed.
      open_films: open_films(size, pictures per second) opens the films, which all get the same pictures.
      interrupted: returns whether to stop before the end.

    Returns:
      What was filmed; None if it was interrupted.

    Raises:
      UserError: if the environment has no pictures or fails, or a film cannot be written.
    """
    agent, config = shooting.agent, shooting.agent.config
    env = _Recorder(agent.maker.single("a filmed environment", filmed=True), agent.spaces)
    rate = shooting.rate or frames_per_second(env)
    names = agent.maker.action_names(env)

    def action_values(observations: np.ndarray) -> np.ndarray:
        values = agent.values(observations)  # [1, A] or [1, J, A]
        env.values = values[0]
        return values

    play = GreedyEvaluation(
        lambda: env,
        action_values,
        agent.spaces.observation_dtype,
        max_parallel=1,
        step_limit=shooting.step_limit,
        epsilon=shooting.epsilon,
    )
    films: Sequence[Film] = ()
    panel, shot, pictures = None, Shot([], [], 0, 0.0), 0
    try:
        for number, seed in enumerate(shooting.seeds):
            play.begin([(number, seed)])
            while play.run(_SLICE_SECONDS):
                if interrupted():
                    return None
            episode = env.episode
            if panel is None:
                own_name = config.environment.env.rpartition(":")[2]
                panel = Panel(own_name, shooting.subtitle, names, episode.frame_shape)
                films = open_films(panel.size, rate)
            scale = Scale.of(np.stack(episode.values), np.array(episode.best))
            for moment in episode.moments():
                if interrupted():
                    return None
                picture = panel.draw(moment, scale)
                repeats = 1 + round(_HOLD_SECONDS * rate) * moment.over
                for film in films:
                    for _ in range(repeats):
                        film.add(picture)
                pictures += repeats
            shot.returns.append(play.outcomes()[number].total)
            shot.lengths.append(len(episode.chosen))
            shot = shot._replace(cut_off=shot.cut_off + play.cut_off)
        for film in films:
            film.close()
        films = ()
    finally:
        play.close()
        for film in films:
            film.discard()
    return shot._replace(seconds=pictures / rate)


def player(env_steps: int) -> str:
    """Returns the subtitle of a film: which agent plays."""
    return f"after {env_steps:,} env steps"


def episode_seeds(seed: int, stream: str, index: int, episodes: int) -> list[int]:
    """Returns the seeds of an evaluation's first episodes."""
    return [integer_seed(seed, stream, index, episode) for episode in range(episodes)]
