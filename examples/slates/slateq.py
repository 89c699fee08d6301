"""SlateQ (Ie et al. 2019): the value of a slate is the mean of its items' values under the user's choice.

`--algorithm examples/slates/slateq.py:SlateQ --network examples/slates/slateq.py:network`. The choice model is the
environment's own, which the paper's experiments assume, too. Of each slate the network gives its value, the values of
its items, and the null item's, so that the value of the item that was chosen can learn.

The null item, no click, has a value like any other (`network`): the session continues, and little time has passed. The
paper's optimisation of slates takes it as 0 (`network_with_null_zero`), as if the session ended there.
"""

from __future__ import annotations

import json
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from interest import NULL_SCORE, SLATE_SIZE, TOPICS, all_slates
from keras import layers, ops

from hvd_dqn.algorithms.base import Batch, Losses, Values
from hvd_dqn.algorithms.dqn import one_step_targets
from hvd_dqn.algorithms.losses import LOSSES
from hvd_dqn.algorithms.noise import Noise
from hvd_dqn.algorithms.selection import select_actions
from hvd_dqn.errors import UserError
from hvd_dqn.networks.outputs import OUTPUT_SCALE, hidden_layers, layer_seed
from hvd_dqn.networks.spec import NetworkSpec, layer_name


class SlateQ:
    """Q-learning of item values, with the target r + discount * max_A Q(s_t, A) for the item that was chosen."""

    takes_fractions = False
    has_value_range = False

    def __init__(self, env_kwargs: str, loss: str, double: bool, n_step: int) -> None:
        """Takes the slate's size from the arguments of the environment.

        Args:
          env_kwargs: JSON of the environment's arguments.
          loss: a name in `LOSSES`.
          double: whether the online network chooses the target's slate.
          n_step: must be 1: s_t shows what was chosen in s_tm1 only if it is the next observation.

        Raises:
          UserError: if n_step is larger.
        """
        if n_step != 1:
            raise UserError(f"SlateQ learns from the response that follows a slate: --n-step {n_step} must be 1")
        self._places = json.loads(env_kwargs).get("slate_size", SLATE_SIZE) + 1
        self.outputs_per_action = 1 + self._places
        self._loss, self._double = LOSSES[loss], double

    def action_values(self, outputs: Any) -> tf.Tensor:
        """Returns the slates' values [B, A], the first of the outputs [B, A, Z]."""
        return outputs[:, :, 0]

    def loss(self, online: Values, target: Values, batch: Batch, noise: Noise) -> Losses:
        """Computes the loss of the chosen item's value, which is the null item's without a click; see `Algorithm`."""
        del noise
        selector = self.action_values(online(batch.s_t)) if self._double else None  # [B, A]
        targets = one_step_targets(batch, self.action_values(target(batch.s_t)), selector)  # [B]
        values = select_actions(online(batch.s_tm1), batch.a_tm1)  # [B, Z]
        response = batch.s_t[:, -self._places :]  # [B, k + 1], 1 at the place that was chosen
        td_error = targets - tf.reduce_sum(values[:, 1:] * response, axis=1)  # [B]
        return Losses(self._loss(td_error), tf.abs(td_error), values[:, 0])


def network(spec: NetworkSpec) -> keras.Model:
    """Builds observations -> item values, the sum of two MLPs, and the null item's value -> [B, A, 2 + k].

    One MLP takes the user's interests; the other takes an item's topic and quality, and the user's interest in it. What
    an item changes depends on these alone. Z of a slate: its value, its items' values in the slate's order, and the
    null item's value.

    Args:
      spec: the network's; `hidden_sizes` are each MLP's.

    Raises:
      UserError: if the observation is none of interest evolution, or the algorithm is none for slates.
    """
    return _network(spec, null_factor=1.0)


def network_with_null_zero(spec: NetworkSpec) -> keras.Model:
    """Builds the same with a null item's value of 0, as equation 22 of the paper has it; see `network`."""
    return _network(spec, null_factor=0.0)


def _network(spec: NetworkSpec, null_factor: float) -> keras.Model:
    """Builds the network; the null item's value is multiplied by a factor."""
    slates = _slates(spec)  # [A, k]
    candidates = int(slates.max()) + 1  # m
    membership = np.zeros((candidates, len(slates)), np.float32)  # [m, A], 1 where the slate has the item
    membership[slates, np.arange(len(slates))[:, None]] = 1.0

    inputs = keras.Input(spec.observation_shape, dtype="float32")
    interests = inputs[:, :TOPICS]  # [B, T]
    topics = ops.reshape(inputs[:, TOPICS : TOPICS * (1 + candidates)], (-1, candidates, TOPICS))  # [B, m, T]
    qualities = inputs[:, TOPICS * (1 + candidates) : TOPICS * (1 + candidates) + candidates]  # [B, m]

    liking = ops.sum(topics * interests[:, None], axis=2)  # [B, m], I(u, i)
    items = ops.concatenate([topics, ops.stack([qualities, liking, ops.ones_like(liking)], axis=2)], axis=2)
    items = ops.pad(items, [[0, 0], [0, 1], [0, 0]])  # [B, m + 1, T + 3]: the null item is all zeros
    q = _stream(interests, spec, "value") + _stream(items, spec, "dense")[:, :, 0]  # [B, m + 1]
    q_items, q_null = q[:, :-1], null_factor * q[:, -1:]  # [B, m], [B, 1]

    scores = ops.exp(liking)  # [B, m]
    null_score = math.exp(NULL_SCORE)
    total = ops.matmul(scores * q_items, membership) + null_score * q_null  # [B, A]
    slate_values = total / (ops.matmul(scores, membership) + null_score)  # [B, A], proposition 1
    of_items = ops.take(q_items, slates, axis=1)  # [B, A, k]
    of_null = ops.repeat(q_null[:, None], len(slates), axis=1)  # [B, A, 1]
    outputs = ops.concatenate([slate_values[:, :, None], of_items, of_null], axis=2)  # [B, A, Z]
    return keras.Model(inputs, outputs, name="slateq")


def _stream(features: keras.KerasTensor, spec: NetworkSpec, name: str) -> keras.KerasTensor:
    """Returns a number for each row of features [..., F]: [..., 1]."""
    number = len(spec.hidden_sizes)
    seed = layer_seed(spec, name, number)
    initial = keras.initializers.VarianceScaling(OUTPUT_SCALE, "fan_in", "uniform", seed=seed)
    hidden = hidden_layers(features, spec.hidden_sizes, spec, name)
    return layers.Dense(1, kernel_initializer=initial, dtype="float32", name=layer_name(name, number))(hidden)


def _slates(spec: NetworkSpec) -> np.ndarray:
    """Returns the slates int64 [A, k] that the actions stand for."""
    slate_size = spec.outputs_per_action - 2
    if slate_size < 1:
        raise UserError("this network gives values of slates: choose --algorithm examples/slates/slateq.py:SlateQ")
    candidates = next(m for m in range(slate_size, spec.num_actions + slate_size)
                      if math.comb(m, slate_size) >= spec.num_actions)  # fmt: skip
    numbers = TOPICS + candidates * (TOPICS + 1) + slate_size + 1
    if spec.observation_shape != (numbers,) or math.comb(candidates, slate_size) != spec.num_actions:
        raise UserError(
            f"this network is for observations of interest evolution with {spec.num_actions} slates of {slate_size}, "
            f"float32 [{numbers}], and not {spec.observation_shape}: choose "
            "--env examples/slates/interest.py:InterestEvolution-v0"
        )
    return all_slates(candidates, slate_size)
