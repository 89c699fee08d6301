"""Atari games: one task, whichever library steps them.

The task is that of ALE's vector form: grey images of 84 x 84, four stacked, four frames per step, an action repeated
with probability 0.25 (Machado et al. 2018), and the game's own score as reward.
"""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import EnvSpec


def is_atari(env_id: str) -> bool:
    """Returns whether an id is one of ALE's."""
    return env_id.startswith("ALE/")


def vector_arguments(spec: EnvSpec, pooled: bool) -> dict[str, Any]:
    """Returns the arguments of the vector form that make it the task; none for other environments.

    Args:
      spec: the environment's registration.
      pooled: whether EnvPool steps it.
    """
    if not is_atari(spec.id):
        return {}
    if pooled:  # the other settings are EnvPool's own
        return {"reward_clip": False, "repeat_action_probability": spec.kwargs["repeat_action_probability"]}
    return {"reward_clipping": False}
