"""Recommends one film after the other, until the user has disliked three: users are fitted to MovieLens 100k.

Item factors are fitted to the ratings of some users, and the environment plays these (`users` "fitted") or the others
("held-out"), whose own factors are fitted to their own ratings. A user likes a film, a rating of 4 or 5, with the
probability of the fitted model (`responses` "simulated"), or as she rated it ("logged"): then only films that she rated
can be recommended.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from ratings import WHEEL, Ratings, read

ITEMS = 100
"""Films, those with the most ratings of fitted users."""
FACTORS, SHRINKAGE, SWEEPS = 4, 6.0, 15
"""Of the matrix factorisation: factors besides the bias, ridge penalty, and rounds of alternating least squares."""
FITTED_USERS = 0.7
"""Share of the users to which the items are fitted."""
LIKED = 4.0
"""Lowest rating of a film that was liked."""
MOST_FILMS, MOST_DISLIKES, FEWEST_LOGGED = 20, 3, 10
"""Films and dislikes at which a session ends, and films that a user must have rated to be played from the log."""


class Users(NamedTuple):
    """Users whose factors are fitted to their own ratings."""

    factors: np.ndarray  # float64 [U, 1 + F]: bias and factors
    rated: np.ndarray  # float64 [U, M], ratings of the films, 0 where there is none


class Model(NamedTuple):
    """Films fitted to some users, and all users."""

    mean: np.ndarray  # float64 [M], mean rating plus the film's bias
    items: np.ndarray  # float64 [M, 1 + F]: 1 and the film's factors
    deviation: float  # of ratings around the model's
    response: tuple[float, float]  # mean ratings of films that were disliked and liked
    likes: np.ndarray  # int64 [M], of fitted users
    titles: list[str]
    fitted: Users
    held_out: Users


def fit_user(ratings: np.ndarray, mean: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Computes a user's bias and factors by ridge regression on her ratings.

    Args:
      ratings: float64 [N].
      mean: float64 [N], of the films rated.
      items: float64 [N, 1 + F], of the films rated.

    Returns:
      float64 [1 + F]; zeros without ratings.
    """
    return np.linalg.solve(items.T @ items + SHRINKAGE * np.eye(items.shape[1]), items.T @ (ratings - mean))


@functools.cache
def fit(wheel: Path = WHEEL) -> Model:
    """Fits films and users to the ratings; the same in every process."""
    return fit_ratings(read(wheel))


def fit_ratings(data: Ratings, seed: int = 0) -> Model:
    """Fits the films to the ratings of a random share of the users, by alternating least squares.

    Args:
      data: the ratings.
      seed: of the split of the users, and of the first factors.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(int(data.users.max()) + 1)
    chosen = np.isin(data.users, order[: round(FITTED_USERS * len(order))])
    films = np.argsort(-np.bincount(data.items[chosen], minlength=len(data.titles)), kind="stable")[:ITEMS]
    table = np.zeros((len(order), len(data.titles)))
    table[data.users, data.items] = data.ratings
    rated = table[:, films]  # [all users, M]
    own, others = (rated[np.sort(part)] for part in np.split(order, [round(FITTED_USERS * len(order))]))
    own = own[(own > 0).any(axis=1)]
    known = own > 0
    mean = own.sum() / known.sum() + np.zeros(len(films))
    items = np.concatenate([np.ones((len(films), 1)), rng.normal(0.0, 0.1, (len(films), FACTORS))], axis=1)
    overall = mean[0]
    for _ in range(SWEEPS):
        users = np.array([fit_user(row[seen], mean[seen], items[seen]) for row, seen in zip(own, known, strict=True)])
        taste = np.concatenate([np.ones((len(users), 1)), users[:, 1:]], axis=1)  # [U, 1 + F]
        for film in range(len(films)):
            seen = known[:, film]
            bias, *factors = fit_user(own[seen, film], overall + users[seen, 0], taste[seen])
            mean[film], items[film, 1:] = overall + bias, factors
    errors = (own - mean - users @ items.T)[known]
    liked = own >= LIKED
    return Model(
        mean,
        items,
        float(errors.std()),
        (float(own[known & ~liked].mean()), float(own[liked].mean())),
        liked.sum(axis=0),
        [data.titles[film] for film in films],
        Users(users, own),
        _fitted_to_themselves(others, mean, items),
    )


def _fitted_to_themselves(rated: np.ndarray, mean: np.ndarray, items: np.ndarray) -> Users:
    rated = rated[(rated > 0).any(axis=1)]
    return Users(np.array([fit_user(row[row > 0], mean[row > 0], items[row > 0]) for row in rated]), rated)


def like_probability(model: Model, user: np.ndarray) -> np.ndarray:
    """Computes the probability that a user of these factors [1 + F] rates each film with 4 or 5, float64 [M]."""
    scores = (model.mean + model.items @ user - (LIKED - 0.5)) / model.deviation
    return np.array([0.5 * (1.0 + math.erf(score / math.sqrt(2.0))) for score in scores])


class NextItem(gym.Env[np.ndarray, np.int64]):
    """One session of a user: the reward is 1 for a film that is liked, and the third dislike ends it.

    The observation is the user's factors fitted to the session's responses, the share of films shown, and the share of
    dislikes. Films that were shown are masked.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        users: str = "fitted",
        responses: str = "simulated",
        wheel: str = str(WHEEL),
        render_mode: str | None = None,
    ) -> None:
        """Fits the simulator.

        Args:
          users: fitted or held-out.
          responses: simulated or logged.
          wheel: file of the package with the ratings.
          render_mode: rgb_array or None.

        Raises:
          ValueError: for other names, or if there is no such file.
        """
        if users not in ("fitted", "held-out") or responses not in ("simulated", "logged"):
            raise ValueError(
                f"users {users!r} with responses {responses!r}: give fitted or held-out, simulated or logged"
            )
        self.model = fit(Path(wheel))
        self.render_mode = render_mode
        self._logged = responses == "logged"
        self._users = self.model.fitted if users == "fitted" else self.model.held_out
        enough = (self._users.rated > 0).sum(axis=1) >= (FEWEST_LOGGED if self._logged else 0)
        self.players = np.flatnonzero(enough)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (self.model.items.shape[1] + 2,), np.float32)
        self.action_space = gym.spaces.Discrete(len(self.model.mean))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins the session of a random user, or of `options["user"]`."""
        super().reset(seed=seed)
        user = (options or {}).get("user")
        self._user = int(self.np_random.choice(self.players)) if user is None else int(user)
        self._likes = like_probability(self.model, self._users.factors[self._user])
        self._shown: list[int] = []
        self._responses: list[float] = []
        self._dislikes = 0
        return self._observation(), {"action_mask": self._mask()}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Recommends a film."""
        if self._logged:
            liked = bool(self._users.rated[self._user, action] >= LIKED)
        else:
            liked = bool(self.np_random.random() < self._likes[action])
        self._shown.append(int(action))
        self._responses.append(self.model.response[liked])
        self._dislikes += not liked
        mask = self._mask()
        ended = self._dislikes == MOST_DISLIKES or len(self._shown) == MOST_FILMS or not mask.any()
        return self._observation(), float(liked), ended, False, {"action_mask": mask}

    def render(self) -> np.ndarray:
        """Returns a picture uint8 [H, W, 3]: one bar for each film, as high as its rating by the session's factors.

        Films that were shown are green, if they were liked, or red.
        """
        picture = np.full((160, 4 * len(self.model.mean), 3), (24, 26, 32), np.uint8)
        user = self._observation()[: self.model.items.shape[1]]
        heights = np.clip((self.model.mean + self.model.items @ user - 1.0) / 4.0 * 150.0, 1.0, 150.0).astype(int)
        for film, height in enumerate(heights):
            picture[155 - height : 155, 4 * film : 4 * film + 3] = (120, 124, 132)
        for film, response in zip(self._shown, self._responses, strict=True):
            liked = response == self.model.response[1]
            picture[155 - heights[film] : 155, 4 * film : 4 * film + 3] = (52, 190, 120) if liked else (226, 74, 64)
        return picture

    def get_action_meanings(self) -> list[str]:
        """Returns the films' titles."""
        return self.model.titles

    def _mask(self) -> np.ndarray:
        """Returns int8 [M], 1 for a film that can be recommended."""
        mask = self._users.rated[self._user] > 0 if self._logged else np.ones(len(self.model.mean), np.bool_)
        mask[self._shown] = False
        return mask.astype(np.int8)

    def _observation(self) -> np.ndarray:
        films = self._shown
        user = fit_user(np.array(self._responses), self.model.mean[films], self.model.items[films])
        shares = [len(films) / MOST_FILMS, self._dislikes / MOST_DISLIKES]
        return np.concatenate([user, shares]).astype(np.float32)


gym.register("NextItem-v0", entry_point=NextItem)
