"""The cases' environments for peers that take single Gymnasium environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


def register(env: str) -> None:
    """Makes the id known to Gymnasium."""
    if env.startswith("Flat/"):
        import comparison.minatar_ids  # noqa: F401
    if env.startswith("ALE/") or "NoFrameskip" in env:
        import ale_py

        gym.register_envs(ale_py)


def make(env: str, **arguments: Any) -> gym.Env[Any, Any]:
    """Makes one environment without Gymnasium's checks of every step."""
    register(env)
    return gym.make(env, disable_env_checker=True, **arguments)
