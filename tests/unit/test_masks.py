"""Laws of action masks where they enter: every form is packed alike, and a mask that is wrong is named."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.vector import AutoresetMode, VectorEnv

from hvd_dqn.envs.collector import Collector
from hvd_dqn.envs.continuation import EpisodeSeeds
from hvd_dqn.envs.foreign import ForeignCalls
from hvd_dqn.envs.guard import Guard, VectorGuard
from hvd_dqn.envs.make import EnvironmentMaker
from hvd_dqn.envs.masks import PackedMask, PackedMaskVector
from hvd_dqn.errors import JobFault, UserError
from hvd_dqn.learner.masks import unpack

from .masked_environments import ACTIONS, FAULTS, mask_of
from .toy_environments import register_toys

register_toys()
GAMMA, ENVS = 0.9, 3
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync": ("sync", {}),
    "async": ("async", {}),
    "native, next step": ("native", {"mode": "NextStep"}),
    "native, same step": ("native", {"mode": "SameStep"}),
    "native, no final masks": ("native", {"mode": "SameStep", "final_masks": False}),
}


def _collector(kind: str, **arguments: Any) -> Collector:
    vectorization, own = KINDS[kind]
    maker = EnvironmentMaker("Gated-v0", own | arguments, vectorization)
    collector = Collector(maker.vector(ENVS), maker.spaces(), GAMMA, EpisodeSeeds(5))
    collector.reset()
    return collector


def _valid_actions(observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    masks = observation[:, -ACTIONS:]
    return (masks * rng.random(masks.shape)).argmax(axis=1)


def _take_steps(collector: Collector, steps: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        collector.step(_valid_actions(collector.observation, rng))


@pytest.mark.parametrize("form", ["infos", "dict", "category"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_observation_ends_in_its_own_mask(kind: str, form: str) -> None:
    """And all actions count as valid where an episode has terminated, or where a final mask is unknown."""
    collector, rng = _collector(kind, form=form), np.random.default_rng(0)
    parts = 1 if form == "category" else 2
    terminated, truncated = 0, 0
    for _ in range(60):
        transition, _ = collector.step(_valid_actions(collector.observation, rng))
        assert transition.s_t.shape[1:] == (parts + ACTIONS,)
        for s_tm1, r, discount, s_t in zip(
            transition.s_tm1, transition.r_t, transition.discount_t, transition.s_t, strict=True
        ):
            assert r == 1.0, "no action was invalid"
            np.testing.assert_array_equal(s_tm1[parts:], mask_of(int(s_tm1[0])))
            last = form != "category" and s_t[1] == 9
            unknown = kind == "native, no final masks" and form != "dict"
            if discount == 0.0:
                terminated += 1
                np.testing.assert_array_equal(s_t[parts:], 1)
            elif not (unknown and (last or form == "category")):
                np.testing.assert_array_equal(s_t[parts:], mask_of(int(s_t[0])))
            elif last:
                np.testing.assert_array_equal(s_t[parts:], 1)
            truncated += bool(last)
    collector._vector_env.close()
    assert terminated > 3
    assert truncated > 3 or form == "category"


FAULTY = [
    (kind, form, fault)
    for kind in ("sync", "async", "native, next step", "native, same step")
    for form in ("infos", "dict")
    for fault in FAULTS
    if not (kind.startswith("native") and (fault == "length" or (form, fault) == ("dict", "missing")))
]
"""Without those that Gymnasium cannot put into the arrays of a vector environment."""


@pytest.mark.parametrize(("kind", "form", "fault"), FAULTY)
def test_a_wrong_mask_is_an_error_that_names_environment_and_step(kind: str, form: str, fault: str) -> None:
    """Of a native vector form the second member alone is at fault."""
    words = {"zeros": "zeros", "length": r"shape \(5,\)", "values": r"\[2 2 2 2\]", "missing": "no action mask"}
    name = {"sync": "environment 0 ", "async": "environment [0-2] "}.get(kind, "environment 1 ")
    collector = _collector(kind, form=form, fault=fault, fault_at=4)
    with pytest.raises(JobFault, match=f"{name}.*{words[fault]}.* at its step 4"):
        _take_steps(collector, 6)
    collector._vector_env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_first_mask_of_an_episode_may_not_be_empty_where_one_has_just_ended(mode: AutoresetMode) -> None:
    """With SAME_STEP the mask of a step that ends an episode is the next one's first; with NEXT_STEP it is the last."""

    class Ending(VectorEnv[Any, Any, Any]):
        metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": mode}
        single_observation_space, single_action_space = gym.spaces.Discrete(7), gym.spaces.Discrete(2)
        num_envs = 2

        def step(self, actions: Any) -> Any:
            masks = np.array([[0, 1], [0, 0]])
            last = {"final_obs": np.zeros(2, np.int64), "final_info": {"action_mask": masks}}
            return np.zeros(2, np.int64), np.ones(2), [False, True], [False, False], {"action_mask": masks, **last}

    env = VectorGuard(PackedMaskVector(Ending()), 4, ForeignCalls())
    if mode == AutoresetMode.NEXT_STEP:
        np.testing.assert_array_equal(env.step(np.zeros(2))[0], [[0, 0, 1], [0, 1, 1]])
    else:
        with pytest.raises(JobFault, match="environment 5 returned an action mask of zeros at its step 1"):
            env.step(np.zeros(2))


def test_an_evaluation_environment_shows_what_the_training_environments_show() -> None:
    maker = EnvironmentMaker("Gated-v0", {"form": "dict"}, "native")
    env = maker.single()
    observation, _ = env.reset(seed=3)
    assert observation.shape == maker.vector(2).single_observation_space.shape == (2 + ACTIONS,)
    np.testing.assert_array_equal(observation[2:], mask_of(int(observation[0])))


@pytest.mark.parametrize(
    ("env", "shape", "stored", "source"),
    [
        ("Taxi-v4", (), (1 + 6,), "infos"),
        ("Gated-v0", (2, 1), (2 + ACTIONS,), "infos"),
        ("MaskedImage-v0", (40, 50, 2), (40 * 50 * 2 + 2,), "observations"),
        ("CartPole-v1", (4,), (4,), ""),
    ],
)
def test_the_spaces_are_those_of_the_observation_alone_and_with_its_mask(
    env: str, shape: tuple[int, ...], stored: tuple[int, ...], source: str
) -> None:
    spaces = EnvironmentMaker(env, {}, "auto").spaces()
    assert (spaces.network_shape, spaces.observation_shape, spaces.mask_source) == (shape, stored, source)
    assert spaces.masked == bool(source)


def test_a_packed_image_comes_apart_as_it_was() -> None:
    maker = EnvironmentMaker("MaskedImage-v0", {}, "sync")
    packed, _ = maker.single().reset(seed=1)
    alone = gym.make("MaskedImage-v0", disable_env_checker=True).reset(seed=1)[0]["image"]
    observation, valid = unpack(tf.constant(packed[None]), maker.spaces().network_shape, 2)
    assert observation.dtype == tf.uint8
    np.testing.assert_array_equal(observation[0], np.moveaxis(alone, 0, -1))
    np.testing.assert_array_equal(valid, [[False, True]])


def test_a_category_out_of_its_range_is_refused_behind_a_mask_too() -> None:
    class Beyond(gym.Env[Any, Any]):
        observation_space, action_space = gym.spaces.Discrete(7), gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return 7, {"action_mask": [1, 1]}

    with pytest.raises(JobFault, match=r"environment 7 returned the observation 7 .*0 to 6"):
        Guard(PackedMask(Beyond()), "environment 7").reset()


def test_masks_of_another_length_are_named_in_a_vector_environment_too() -> None:
    class Short(VectorEnv[Any, Any, Any]):
        metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        single_observation_space, single_action_space = gym.spaces.Discrete(7), gym.spaces.Discrete(2)
        num_envs = 2

        def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
            return np.zeros(2, np.int64), {"action_mask": np.ones((2, 3))}

    with pytest.raises(JobFault, match=r"environment 4 returned an action mask of shape \(3,\).*2 actions"):
        VectorGuard(PackedMaskVector(Short()), 4, ForeignCalls()).reset()


@pytest.mark.parametrize("parts", [("here",), ("here", "there", "action_mask"), ("nested", "action_mask")])
def test_another_dict_is_refused(parts: tuple[str, ...]) -> None:
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    spaces = {part: gym.spaces.Dict({"a": box}) if part == "nested" else box for part in parts}

    class Other(gym.Env[Any, Any]):
        observation_space = gym.spaces.Dict(spaces)
        action_space = gym.spaces.Discrete(2)

    gym.registry.pop("Other-v0", None)
    gym.register("Other-v0", entry_point=Other)
    with pytest.raises(UserError, match=re.escape("a Dict of one of them and 'action_mask'")):
        EnvironmentMaker("Other-v0", {}, "sync").spaces()


def test_an_environment_that_fails_where_masks_are_looked_for_is_named_where_it_is_used() -> None:
    class Broken(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            raise SystemExit("gone")

    gym.registry.pop("Broken-v0", None)
    gym.register("Broken-v0", entry_point=Broken)
    maker = EnvironmentMaker("Broken-v0", {}, "sync")
    collector = Collector(maker.vector(2), maker.spaces(), GAMMA, EpisodeSeeds(5))
    with pytest.raises(JobFault, match="environment 0 raised SystemExit: gone"):
        collector.reset()
