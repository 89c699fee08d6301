"""Pictures of an episode: an environment's own, the colour screen of a game of Atari, or the observation itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from hvd_dqn.envs.action_bins import BinnedSpace
from hvd_dqn.envs.checks import Unfit
from hvd_dqn.errors import UserError

RENDER_MODE = "rgb_array"
"""Of environments that draw pictures."""
COLOUR_SCREEN = {"grayscale": False, "img_height": 210, "img_width": 160, "stack_num": 1}
"""Arguments of ALE's vector form that show the screen as the console does."""
_FRAMES_PER_SECOND = 15
"""Of pictures whose environment declares no speed: four frames of a game of Atari are one step, at 60 frames/s."""
_DARK = (27, 33, 43)
_PALETTE = np.array(
    [
        *((86, 180, 233), (240, 228, 66), (90, 98, 110), (0, 158, 115), (230, 159, 0), (204, 121, 167)),
        *((0, 114, 178), (213, 94, 0), (200, 205, 212), (130, 100, 190)),
    ],
    np.uint8,
)
"""Colours of the channels of an image that has no colours, after Okabe and Ito (2008): distinct for all eyes."""
_GAMES = {
    "CartPole": ("left", "right"),
    "MountainCar": ("left", "none", "right"),
    "Acrobot": ("-1", "0", "+1"),
    "LunarLander": ("none", "left", "main", "right"),
    "Taxi": ("south", "north", "east", "west", "pick up", "drop"),
    "FrozenLake": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "Blackjack": ("stick", "hit"),
    "CarRacing": ("none", "right", "left", "gas", "brake"),
    "TreasureMaze": ("up", "down", "left", "right"),
}
"""Names of the actions of Gymnasium's environments and our own, by the name in their ids; LunarLander's are engines."""
_MINATAR = {"n": "none", "l": "left", "u": "up", "r": "right", "d": "down", "f": "fire"}


class ColourScreen(gym.Wrapper[Any, Any, Any, Any]):
    """A game of Atari that renders its colour screen: that of a second game with the same seeds and actions."""

    def __init__(self, env: gym.Env[Any, Any], screen: gym.Env[Any, Any]) -> None:
        """Wraps a game.

        Args:
          env: the game as the agent sees it.
          screen: the game made with `COLOUR_SCREEN`.
        """
        super().__init__(env)
        self._screen = screen
        self._picture: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets both games; without a seed, by a random one."""
        seed = int(np.random.default_rng().integers(2**31)) if seed is None else seed
        self._picture, _ = self._screen.reset(seed=seed, options=options)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps both games."""
        self._picture, other_reward, *_ = self._screen.step(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        if reward != other_reward:
            raise Unfit(f"reward {reward} and {other_reward}", "a game and its colour screen have become different")
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """Returns the screen, uint8 [210, 160, 3]."""
        return self._picture[-1]

    def close(self) -> None:
        """Closes both games."""
        self._screen.close()
        self.env.close()


class ObservationPictures(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that renders its observations, which are images."""

    def __init__(self, env: gym.Env[Any, Any], env_id: str, stacked_frames: int) -> None:
        """Wraps an environment.

        Args:
          env: the environment, its channels last.
          env_id: for the message.
          stacked_frames: how many frames the channels stack; the newest is last.

        Raises:
          UserError: if its observations are no images.
        """
        super().__init__(env)
        space = env.observation_space
        if not (isinstance(space, gym.spaces.Box) and len(space.shape) in (2, 3) and min(space.shape[:2]) > 1):
            raise UserError(
                f"{env_id} draws no pictures, and its observations are no images: add {RENDER_MODE!r} to its "
                "metadata['render_modes'], and return uint8 [height, width, 3] from render()"
            )
        self._low, self._high = float(np.min(space.low)), float(np.max(space.high))
        self._stacked_frames = stacked_frames
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets and keeps the first observation."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps and keeps the observation."""
        self._observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """Returns the newest frame, uint8 [H, W, 3]."""
        return picture_of(np.asarray(self._observation), self._low, self._high, self._stacked_frames)


def picture_of(observation: np.ndarray, low: float, high: float, stacked_frames: int = 1) -> np.ndarray:
    """Returns an image as a picture: grey, in its own colours, or with one colour for each of its channels.

    Args:
      observation: [H, W] or [H, W, C].
      low: its smallest possible number; where the bounds are infinite, the image's own are used.
      high: its largest.
      stacked_frames: frames that the channels stack; the newest is last, and is shown.

    Returns:
      uint8 [H, W, 3].
    """
    image = np.atleast_3d(observation).astype(np.float64)
    image = image[..., -(image.shape[-1] // stacked_frames) :]  # [H, W, channels of a frame]
    if not np.isfinite([low, high]).all():
        low, high = float(image.min()), float(image.max())
    share = np.clip((image - low) / max(high - low, 1e-12), 0.0, 1.0)
    if share.shape[-1] in (1, 3):
        return np.round(255 * np.broadcast_to(share, (*share.shape[:2], 3))).astype(np.uint8)
    picture = np.full((*share.shape[:2], 3), _DARK, np.float64)
    for channel in reversed(range(share.shape[-1])):  # the first channels are the ones that act, and lie on top
        weight = share[..., channel, None]
        picture = picture * (1 - weight) + _PALETTE[channel % len(_PALETTE)] * weight
    return np.round(picture).astype(np.uint8)


def frames_per_second(env: gym.Env[Any, Any]) -> float:
    """Returns how many steps an environment takes in a second of its own time, from 1 to 60."""
    declared = (env.metadata or {}).get("render_fps")
    known = isinstance(declared, (int, float)) and declared > 0
    return min(60.0, max(1.0, float(declared))) if known else _FRAMES_PER_SECOND  # type: ignore[arg-type]


def action_names(env: gym.Env[Any, Any], env_id: str) -> list[str]:
    """Returns short names of the actions: the environment's own, known ones, or numbers.

    Where an action has joints, these are the names of the first one's bins, then of the second one's, and so on.

    Args:
      env: a single environment.
      env_id: its Gymnasium id.
    """
    space = env.action_space
    if isinstance(space, BinnedSpace):
        return [f"{joint}: {value:.2g}" for joint, values in enumerate(space.values, 1) for value in values]
    if isinstance(space, gym.spaces.MultiDiscrete):
        return [f"{joint}: {bin_}" for joint, bins in enumerate(space.nvec, 1) for bin_ in range(bins)]
    num_actions = int(getattr(space, "n", 0))
    names = [str(name) for name in _own_names(env)] or list(_GAMES.get(_bare(env_id), ()))
    return names if len(names) == num_actions else [str(action) for action in range(num_actions)]


def _bare(env_id: str) -> str:
    """Returns the name in an id: `namespace/Name-v1` -> Name."""
    return env_id.rpartition("/")[2].partition("-v")[0]


def _ale_name(name: str) -> str:
    """Returns ALE's name of an action in lower case: UPRIGHTFIRE -> upright+fire."""
    joystick, fire, _ = name.lower().replace("noop", "none").partition("fire")
    return "+".join(filter(None, (joystick, fire)))


def _own_names(env: gym.Env[Any, Any]) -> list[Any]:
    """Returns what the environment calls its actions, [] if it does not say: ALE's screens, MinAtar's games, others."""
    try:
        core: Any = env.unwrapped
        core = getattr(core, "vector_env", core).unwrapped
        if hasattr(core, "ale"):
            return [_ale_name(action.name) for action in core.ale.get_action_set()]
        if hasattr(core, "action_set"):
            return [_MINATAR[core.game.env.action_map[action]] for action in core.action_set]
        return list(core.get_action_meanings())
    except Exception:  # foreign code, for a label
        return []
