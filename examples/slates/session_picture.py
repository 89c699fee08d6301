"""Draws a session of interest evolution: interests, the last slate, and the time that is left."""

from __future__ import annotations

import numpy as np

BAR, GAP, HEIGHT = 18, 4, 80
"""Width of a topic's bar, space between two, and height of an interest of 1; pixels."""
BACKGROUND, LINE, CLICKED = (24, 26, 32), (120, 124, 132), (255, 191, 0)
WORST, BEST = np.array([226.0, 74.0, 64.0]), np.array([52.0, 190.0, 120.0])
"""Colours of the topics whose quality is -1 and 1."""


def draw_session(
    interests: np.ndarray, qualities: np.ndarray, shown: tuple[np.ndarray, np.ndarray] | None, time_left: float
) -> np.ndarray:
    """Draws one bar for each topic, a mark under those of the last slate, and a bar for the time left.

    Args:
      interests: float64 [T], -1 to 1: height of the bars.
      qualities: float64 [T], -1 to 1: colours of the bars, red to green.
      shown: topics int64 [k] and response [k + 1] of the last slate; the mark of what was clicked is amber.
      time_left: share of the session's time, 0 to 1.

    Returns:
      uint8 [H, W, 3], with even sides.
    """
    width = len(interests) * (BAR + GAP) + GAP
    picture = np.full((2 * HEIGHT + 60, width + width % 2, 3), BACKGROUND, np.uint8)
    middle = HEIGHT + 10
    for topic, (interest, quality) in enumerate(zip(interests, qualities, strict=True)):
        end = middle - round(float(interest) * HEIGHT)
        picture[min(middle, end) : max(middle, end), _columns(topic)] = (
            WORST + (BEST - WORST) * (float(quality) + 1) / 2
        )
    picture[middle, GAP : width - GAP] = LINE
    if shown is not None:
        for topic, clicked in zip(shown[0], shown[1][:-1], strict=True):
            picture[2 * HEIGHT + 16 : 2 * HEIGHT + 26, _columns(int(topic))] = CLICKED if clicked else LINE
    picture[2 * HEIGHT + 36 : 2 * HEIGHT + 48, GAP : GAP + round((width - 2 * GAP) * time_left)] = LINE
    return picture


def _columns(topic: int) -> slice:
    left = GAP + topic * (BAR + GAP)
    return slice(left, left + BAR)
