"""Takes observations that stack frames apart and puts them together.

The C lanes of a pixel [C * k] lie next to one another. Where they fill one unsigned integer, whole arrays of them are
shifted, which is several times as fast as copying every C-th element.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_SIZES = (1, 2, 4, 8)
_SAMPLED = 251
"""One byte in so many is compared before all others are."""
_AT_A_TIME = 16
"""Observations at a time: few enough for the processor's cache, and enough that NumPy's calls cost little."""


def take_apart(observations: np.ndarray, stacked_frames: int) -> np.ndarray:
    """Returns copies of the frames of observations [N, *sides, C * k] as arrays [N, C, ...]."""
    words = _words(observations, stacked_frames)
    if words is None:
        return np.ascontiguousarray(_split(observations, stacked_frames))
    frames = np.empty((len(words), stacked_frames, words.shape[1]), _lane(words, stacked_frames))
    for place in range(stacked_frames):
        frames[:, place] = words >> (8 * frames.itemsize * place)
    return frames


def newest_frames(observations: np.ndarray, stacked_frames: int) -> np.ndarray:
    """Returns copies of the newest frames of observations [N, *sides, C * k] as arrays [N, ...]."""
    words = _words(observations, stacked_frames)
    if words is None:
        return np.ascontiguousarray(_split(observations, stacked_frames)[:, -1])
    lane = _lane(words, stacked_frames)
    newest = np.empty(words.shape, lane)
    for start in range(0, len(words), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        newest[part] = words[part] >> (8 * lane.itemsize * (stacked_frames - 1))
    return newest


def equal(observations: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns bool [N], whether observations [N, ...] have the same bytes as others."""
    new, old = _bytes(observations), _bytes(others)
    same: np.ndarray = (new[:, ::_SAMPLED] == old[:, ::_SAMPLED]).all(axis=1)
    for start in range(0, len(new) if same.any() else 0, _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        same[part] &= (new[part] == old[part]).all(axis=1)
    return same


def follow(observations: np.ndarray, before: np.ndarray, stacked_frames: int) -> np.ndarray:
    """Returns whether all but the newest frames of observations are all but the oldest of others.

    Args:
      observations: [N, *sides, C * k].
      before: [N, *sides, C * k], the others.
      stacked_frames: C.

    Returns:
      bool [N]; False, too, where comparing would take longer than looking each frame up.
    """
    new, old = _words(observations, stacked_frames), _words(before, stacked_frames)
    same = np.zeros(len(observations), np.bool_)
    if new is None or old is None:
        return same
    bits = 8 * _lane(new, stacked_frames).itemsize
    for start in range(0, len(new), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        difference = old[part] >> bits
        difference ^= new[part]
        difference <<= bits
        same[part] = difference.max(axis=1, initial=0) == 0
    return same


def put_together(
    frames: Callable[[slice, int], np.ndarray],
    stacked_frames: int,
    out: np.ndarray,
    earlier: tuple[np.ndarray, Callable[[slice], int]] | None = None,
) -> None:
    """Puts observations together.

    Args:
      frames: returns copies of the frames [n, ...] at a place of the stacks (0 is the oldest) of some observations.
      stacked_frames: C.
      out: [N, *sides, C * k], takes the observations.
      earlier: [N, *sides, C * k], observations of which each shares frames with one of these, and a function that
        returns by how many frames some of these are newer, C where they share none.
    """
    words = _words(out, stacked_frames)
    earlier_words = None if earlier is None else _words(earlier[0], stacked_frames)
    for start in range(0, len(out), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        if words is None:
            parts = _split(out[part], stacked_frames)
            for place in range(stacked_frames):
                parts[:, place] = frames(part, place).reshape(parts[:, place].shape)
            continue
        lane, joined = _lane(words, stacked_frames), words[part]
        bits = 8 * lane.itemsize
        newer = stacked_frames if earlier is None or earlier_words is None else earlier[1](part)
        shared = stacked_frames - newer
        for place in reversed(range(shared, stacked_frames)):
            lanes = frames(part, place).view(lane).reshape(joined.shape)
            if place == stacked_frames - 1:
                joined[...] = lanes
            else:
                joined <<= bits
                joined |= lanes
        if shared and earlier_words is not None:
            joined <<= bits * shared
            joined |= earlier_words[part] >> (bits * newer)


def _split(observations: np.ndarray, stacked_frames: int) -> np.ndarray:
    """Returns a view of observations [N, *sides, C * k] as their frames [N, C, *sides, k]."""
    *leading, channels = observations.shape
    return np.moveaxis(observations.reshape(*leading, stacked_frames, channels // stacked_frames), -2, 1)


def _bytes(array: np.ndarray) -> np.ndarray:
    """Returns uint8 [N, ...] of an array [N, ...]."""
    return np.ascontiguousarray(array).reshape(len(array), math.prod(array.shape[1:])).view(np.uint8)


def _words(observations: np.ndarray, stacked_frames: int) -> np.ndarray | None:
    """Returns a view with one unsigned integer for each pixel, [N, pixels], its newest frame in the highest bits.

    None if there are no integers of such a size, or if the observations are not contiguous.
    """
    size = observations.shape[-1] * observations.itemsize
    if size not in _SIZES or size // stacked_frames not in _SIZES or not observations.flags.c_contiguous:
        return None
    return observations.view(f"<u{size}").reshape(len(observations), math.prod(observations.shape[1:-1]))


def _lane(words: np.ndarray, stacked_frames: int) -> np.dtype:
    """Returns the dtype of one frame's part of a word."""
    return np.dtype(f"<u{words.itemsize // stacked_frames}")
