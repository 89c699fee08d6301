"""How the episodes of a vector environment begin, and how open ones are saved and continued."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncVectorEnv

from hvd_dqn.envs.action_log import ActionLog
from hvd_dqn.envs.foreign import foreign
from hvd_dqn.envs.open_episode import OpenEpisode
from hvd_dqn.envs.saved_state import copied_state, has_own_state, is_saved_state
from hvd_dqn.envs.seeded_episodes import Start
from hvd_dqn.errors import UserError
from hvd_dqn.seeding import integer_seed

_VECTOR = "the native vector environment"


class EpisodeSeeds(NamedTuple):
    """Where the seeds of one rank's episodes come from."""

    seed: int = 0  # the run's
    first_env: int = 0  # index of this rank's first environment over all ranks
    stream: tuple[int, ...] = ()  # further address of a native vector environment's generator


class Begun(NamedTuple):
    """The environments after a reset."""

    observation: Any  # [E, *observation_shape]
    continued: np.ndarray  # bool [E], whether the environment continues the episode that it was given


class Saved(NamedTuple):
    """What an environment needs to continue its open episode: its actions or a state."""

    actions: np.ndarray | None = None
    state: Any = None
    lasting: Any = None


class Continuation(Protocol):
    """What a collector asks of a kind of vector environment."""

    def begin(self, episodes: list[OpenEpisode | None], generator: Any, first_number: int) -> Begun:
        """Resets all environments.

        Args:
          episodes: per environment the episode to continue, or None for a new one.
          generator: state of the members' common generator, or None to seed it.
          first_number: number of the new episodes.
        """

    def record(self, actions: np.ndarray, begun: np.ndarray | None) -> None:
        """Takes note of one vector step.

        Args:
          actions: int [E, ...].
          begun: bool [E], whose new episode has begun in this step; None for none.
        """

    def save(self) -> tuple[list[Saved], Any]:
        """Returns what each environment needs, none where they cannot be saved, and the common generator's state."""


class SeparateEpisodes:
    """Of Gymnasium's SyncVectorEnv and AsyncVectorEnv: each member is a SeededEpisodes."""

    def __init__(self, vector_env: VectorEnv[Any, Any, Any], seeds: EpisodeSeeds, num_actions: int) -> None:
        """Asks the environments whether they offer their states; if not, their actions are kept."""
        self._vector_env: Any = vector_env
        self._seeds = seeds
        self._saves_state = all(vector_env.get_attr("saves_state"))
        self._log = ActionLog(vector_env.num_envs, np.min_scalar_type(num_actions - 1))

    def begin(self, episodes: list[OpenEpisode | None], generator: Any, first_number: int) -> Begun:
        """Resets each environment by its own seed, or replays or restores its episode."""
        del generator
        going_on = [episode if episode and self._can_go_on(episode) else None for episode in episodes]
        seed, first_env, _ = self._seeds
        starts = [Start(seed, first_env + i, first_number, episode) for i, episode in enumerate(going_on)]
        self._vector_env.set_attr("next_start", starts)
        observation, _ = self._vector_env.reset()
        none = np.zeros(0, np.int64)
        actions = [none if episode is None or episode.actions is None else episode.actions for episode in going_on]
        self._log.restore(actions)
        if self._saves_state:
            self.save()  # an environment that gives a state of another kind is refused before the run begins
        return Begun(observation, np.array([episode is not None for episode in going_on]))

    def record(self, actions: np.ndarray, begun: np.ndarray | None) -> None:
        """Keeps the actions of environments that do not offer their states."""
        if self._saves_state:
            return
        self._log.append(actions)
        if begun is not None:
            self._log.begin(begun)

    def save(self) -> tuple[list[Saved], Any]:
        """Returns states where all environments offer them, else actions."""
        if self._saves_state:
            return [Saved(state=state) for state in self._vector_env.call("episode_state")], None
        lasting = self._vector_env.call("lasting")
        return [Saved(self._log.of(env), lasting=own) for env, own in enumerate(lasting)], None

    def _can_go_on(self, episode: OpenEpisode) -> bool:
        if episode.ended:
            return True
        if episode.state is not None:
            return self._saves_state and is_saved_state(episode.state)
        return episode.actions is not None


class CartPoleEpisodes:
    """Of CartPole's native vector environment: arrays, and one generator for all members."""

    def __init__(self, vector_env: CartPoleVectorEnv, seeds: EpisodeSeeds) -> None:
        """Uses the environment's own arrays."""
        self._env = vector_env
        self._seeds = seeds

    def begin(self, episodes: list[OpenEpisode | None], generator: Any, first_number: int) -> Begun:
        """Resets all, then puts the arrays of open episodes in place."""
        self._env.reset(seed=_generator_seed(self._seeds, first_number))
        continued = np.array([episode is not None and _is_cartpole(episode.state) for episode in episodes])
        for i, episode in enumerate(episodes):
            if episode is not None and continued[i]:
                self._env.state[:, i] = episode.state["cartpole"]
                self._env.steps[i] = episode.state["steps"]
                self._env.prev_done[i] = episode.ended
        if generator is not None:
            self._env.np_random.bit_generator.state = generator
        return Begun(self._env.state.T.astype(np.float32), continued)

    def record(self, actions: np.ndarray, begun: np.ndarray | None) -> None:
        """Keeps nothing."""

    def save(self) -> tuple[list[Saved], Any]:
        """Returns the arrays' columns and the generator's state."""
        columns = zip(self._env.state.T.copy(), self._env.steps.tolist(), strict=True)
        saved = [Saved(state={"cartpole": state, "steps": steps}) for state, steps in columns]
        return saved, self._env.np_random.bit_generator.state


class StatefulEpisodes:
    """Of native vector environments that offer `get_state` and `set_state`: one state per member, one generator."""

    def __init__(self, vector_env: VectorEnv[Any, Any, Any], seeds: EpisodeSeeds) -> None:
        """Uses the environment's own states."""
        self._vector_env = vector_env
        self._env: Any = vector_env.unwrapped
        self._seeds = seeds

    def begin(self, episodes: list[OpenEpisode | None], generator: Any, first_number: int) -> Begun:
        """Resets all, then puts back the states of open episodes."""
        observation, _ = self._vector_env.reset(seed=_generator_seed(self._seeds, first_number))
        states = [episode.state["member"] if episode and _is_member(episode.state) else None for episode in episodes]
        continued = np.array([state is not None for state in states])
        observation = np.array(observation)
        for i, episode in enumerate(episodes):
            if episode is not None and continued[i]:
                observation[i] = episode.observation
        with foreign(_VECTOR, "set_state()"):
            self._env.set_state(states)
        if generator is not None:
            self._env.np_random.bit_generator.state = generator
        self.save()  # states of another kind are refused before the run begins
        return Begun(observation, continued)

    def record(self, actions: np.ndarray, begun: np.ndarray | None) -> None:
        """Keeps nothing."""

    def save(self) -> tuple[list[Saved], Any]:
        """Returns the members' states and the generator's."""
        with foreign(_VECTOR, "get_state()"):
            states = self._env.get_state()
        if not isinstance(states, (list, tuple)) or len(states) != self._vector_env.num_envs:
            raise UserError(
                f"get_state() of {_VECTOR} must return a list of {self._vector_env.num_envs} states, one for each "
                "environment"
            )
        copies = copied_state(list(states), self._env)
        return [Saved(state={"member": state}) for state in copies], self._env.np_random.bit_generator.state


class LostEpisodes:
    """Of vector environments that can neither save their states nor be seeded by episode: EnvPool's and ALE's.

    Their open episodes end, unfinished, where a run is resumed.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any], seeds: EpisodeSeeds) -> None:
        """Uses the environment's own generator."""
        self._vector_env = vector_env
        self._seeds = seeds

    def begin(self, episodes: list[OpenEpisode | None], generator: Any, first_number: int) -> Begun:
        """Resets all."""
        del generator
        observation, _ = self._vector_env.reset(seed=_generator_seed(self._seeds, first_number))
        return Begun(observation, np.zeros(len(episodes), np.bool_))

    def record(self, actions: np.ndarray, begun: np.ndarray | None) -> None:
        """Keeps nothing."""

    def save(self) -> tuple[list[Saved], Any]:
        """Returns nothing."""
        return [], None


def make_continuation(vector_env: VectorEnv[Any, Any, Any], seeds: EpisodeSeeds, num_actions: int) -> Continuation:
    """Returns what fits the kind of vector environment."""
    if isinstance(vector_env, (SyncVectorEnv, AsyncVectorEnv)):
        return SeparateEpisodes(vector_env, seeds, num_actions)
    if type(vector_env.unwrapped) is CartPoleVectorEnv:
        return CartPoleEpisodes(vector_env.unwrapped, seeds)
    if has_own_state(vector_env.unwrapped):
        return StatefulEpisodes(vector_env, seeds)
    return LostEpisodes(vector_env, seeds)


def _generator_seed(seeds: EpisodeSeeds, occasion: int) -> int:
    """Returns the seed of a native vector environment's generator."""
    return integer_seed(seeds.seed, "environment", seeds.first_env, occasion, *seeds.stream)


def _is_member(state: Any) -> bool:
    return isinstance(state, dict) and set(state) == {"member"}


def _is_cartpole(state: Any) -> bool:
    return (
        isinstance(state, dict)
        and set(state) == {"cartpole", "steps"}
        and getattr(state["cartpole"], "shape", None) == (4,)
        and type(state["steps"]) is int
    )
