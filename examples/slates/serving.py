"""Ways to choose a slate from item values (Ie et al. 2019, section 5), and sessions of many users with one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from interest import NULL_SCORE, TOPICS, InterestEvolutionVector


class Items(NamedTuple):
    """What slates are made of: the items' scores in the choice model, and their values."""

    scores: np.ndarray  # float64 [E, m], v(s, i)
    values: np.ndarray  # float64 [E, m], Q(s, i)
    null_score: np.ndarray  # float64 [E, 1]
    null_value: np.ndarray  # float64 [E, 1]


class Served(NamedTuple):
    """What the sessions gave."""

    returns: np.ndarray  # float64 [E]
    quality: float  # mean of the items that were watched


def items_of(observation: np.ndarray, outputs: np.ndarray, slates: np.ndarray) -> Items:
    """Reads the items out of the observations [E, n] and the network's outputs [E, A, 2 + k].

    Args:
      observation: float32, of interest evolution.
      outputs: float32, of `slateq.network`.
      slates: int64 [A, k].
    """
    candidates = int(slates.max()) + 1
    topics = observation[:, TOPICS : TOPICS * (1 + candidates)].reshape(-1, candidates, TOPICS)  # [E, m, T]
    scores = np.exp(np.einsum("et,emt->em", observation[:, :TOPICS], topics, dtype=np.float64))  # [E, m]
    values = np.zeros_like(scores)
    values[:, slates] = outputs[:, :, 1:-1]  # an item has one value in all its slates
    return Items(scores, values, np.full((len(scores), 1), np.exp(NULL_SCORE)), outputs[:, 0, -1:].astype(np.float64))


def top_k(items: Items, slate_size: int) -> np.ndarray:
    """Returns the items with the largest v(s, i) Q(s, i), int64 [E, k]."""
    return np.sort(np.argsort(-items.scores * items.values, axis=1)[:, :slate_size], axis=1)


def greedy(items: Items, slate_size: int) -> np.ndarray:
    """Returns the items that enlarge the slate's value most, one after the other, int64 [E, k].

    Section 5.2; here the null item's value counts, too.
    """
    rows = np.arange(len(items.scores))
    total, mass = items.null_score * items.null_value, items.null_score  # [E, 1] each
    taken = np.zeros(items.scores.shape, np.bool_)
    for _ in range(slate_size):
        values = (total + items.scores * items.values) / (mass + items.scores)  # [E, m]
        best = np.where(taken, -np.inf, values).argmax(axis=1)  # [E]
        taken[rows, best] = True
        total = total + (items.scores * items.values)[rows, best][:, None]
        mass = mass + items.scores[rows, best][:, None]
    return np.nonzero(taken)[1].reshape(-1, slate_size)


def actions_of(chosen: np.ndarray, slates: np.ndarray) -> np.ndarray:
    """Returns the actions int64 [E] that show these items, ascending numbers [E, k]."""
    base = (int(slates.max()) + 1) ** np.arange(slates.shape[1])[::-1]  # the slates are in the order of these sums
    return np.searchsorted(slates @ base, chosen @ base)


def serve(choose: Callable[[np.ndarray], np.ndarray], users: int, seed: int) -> Served:
    """Plays one session of each user.

    Args:
      choose: observations float32 [E, n] -> actions int64 [E].
      users: E.
      seed: of the users and of what they do.
    """
    env = InterestEvolutionVector(users)
    observation, _ = env.reset(seed=seed)
    open_sessions = np.ones(users, np.bool_)
    returns, rows = np.zeros(users), np.arange(users)
    quality, watched = 0.0, 0
    while open_sessions.any():
        actions = choose(observation)
        qualities = env.qualities[rows[:, None], env.slates[actions]]  # [E, k]
        observation, reward, ended, _, _ = env.step(actions)
        clicked = (env.responses[:, :-1] > 0.0) & open_sessions[:, None]  # [E, k]
        quality += float(qualities[clicked].sum())
        watched += int(clicked.sum())
        returns += reward * open_sessions
        open_sessions &= ~ended
    return Served(returns, quality / max(1, watched))
