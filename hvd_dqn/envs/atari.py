"""Atari games: one task, whichever library steps them, and the published protocols of playing them.

The task is that of ALE's vector form: grey images of 84 x 84, four stacked, four frames per step of which the last two
are max-pooled, an action repeated with probability 0.25 (Machado et al. 2018), and the game's own score as reward.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from gymnasium.envs.registration import EnvSpec

from hvd_dqn.errors import UserError


class Protocol(NamedTuple):
    """A published way to play the games."""

    description: str  # for the start report
    arguments: dict[str, Any]  # of ALE's vector environment
    life_ends_task: bool  # whether a lost life ends the task in training


_BOTH = {
    "frameskip": 4,
    "maxpool": True,
    "stack_num": 4,
    "img_height": 84,
    "img_width": 84,
    "grayscale": True,
    "full_action_space": False,
    "max_num_frames_per_episode": 108_000,
    "episodic_life": False,  # it would restart the game after each life
    "life_loss_info": False,  # it would report ends of episodes that continue; see LifeLosses
    "reward_clipping": False,  # it would hide the score; --clip-rewards clips what is learned from
    "use_fire_reset": False,  # neither source presses FIRE for the agent
}
PROTOCOLS = {
    # Castro et al. (2018), "Dopamine", https://arxiv.org/abs/1812.06110, after Machado et al. (2018), section 5,
    # https://arxiv.org/abs/1709.06009: sticky actions in place of no-ops, and no signal for lost lives.
    "dopamine": Protocol(
        "an action is repeated with probability 0.25; a game ends when it is over",
        {**_BOTH, "repeat_action_probability": 0.25, "noop_max": 0},
        life_ends_task=False,
    ),
    # Mnih et al. (2015), Methods and Extended Data Table 1, with the episodes of half an hour of Quan and Ostrovski
    # (2020), "DQN Zoo", in place of five minutes in evaluations.
    "nature": Protocol(
        "up to 30 no-ops begin a game; in training a lost life ends the task",
        {**_BOTH, "repeat_action_probability": 0.0, "noop_max": 31},  # ALE draws from 0 to noop_max - 1
        life_ends_task=True,
    ),
}
"""The values of --protocol but "own"."""
OWN = "own"
"""The protocol of an environment as it is registered."""
_FRAMES_PER_STEP = 4


def is_atari(env_id: str) -> bool:
    """Returns whether an id is one of ALE's."""
    return env_id.startswith("ALE/")


def vector_arguments(spec: EnvSpec, given: dict[str, Any], protocol: str, pooled: bool) -> dict[str, Any]:
    """Returns the arguments of the vector form that make it the task, with those that were given.

    Args:
      spec: the environment's registration.
      given: keyword arguments of the user's.
      protocol: a name of PROTOCOLS, or "own".
      pooled: whether EnvPool steps it.

    Raises:
      UserError: if the protocol is not for this environment, or contradicts what was given.
    """
    if protocol != OWN:
        return given | _protocol_arguments(spec, given, protocol, pooled)
    if not is_atari(spec.id):
        return given
    if pooled:  # the other settings are EnvPool's own
        own = {"reward_clip": False, "repeat_action_probability": spec.kwargs["repeat_action_probability"]}
        return own | given
    return {"reward_clipping": False} | given


def _protocol_arguments(spec: EnvSpec, given: dict[str, Any], protocol: str, pooled: bool) -> dict[str, Any]:
    if not is_atari(spec.id):
        raise UserError(
            f"--protocol {protocol} is for Atari's games, and {spec.id} is none of ALE's: leave --protocol out, or "
            "give --env ALE/Pong-v5"
        )
    if pooled:
        raise UserError(
            f"--protocol {protocol} is defined for ALE's environments, not for EnvPool's: use --vectorization auto"
        )
    wanted = PROTOCOLS[protocol].arguments
    for name in wanted.keys() & given.keys():
        if given[name] != wanted[name]:
            raise UserError(
                f"--protocol {protocol} has {name} {wanted[name]}, and --env-kwargs has {given[name]}: leave one of "
                "the two out"
            )
    return wanted


def thread_arguments(env_id: str, given: dict[str, Any], num_envs: int) -> dict[str, Any]:
    """Returns arguments that give ALE's vector environment this rank's cores in place of all of the host's."""
    if not is_atari(env_id) or "num_threads" in given:
        return {}
    return {"num_threads": min(num_envs, len(os.sched_getaffinity(0)))}


def about(env_id: str, arguments: dict[str, Any], protocol: str, env_steps: int) -> dict[str, str]:
    """Returns what the start report says of a game: its protocol, and the frames of a run; nothing of others."""
    if not is_atari(env_id):
        return {}
    frames = arguments.get("frameskip", arguments.get("frame_skip", _FRAMES_PER_STEP))
    how = f"{protocol}: {PROTOCOLS[protocol].description}" if protocol != OWN else "that of the registered environment"
    return {"protocol": how, "frames": f"{frames} per env step, {frames * env_steps:,} in {env_steps:,} env steps"}
