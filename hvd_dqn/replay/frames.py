"""Observations of stacked frames, each frame stored once and found again by its content.

A stack is C numbers of frames. Nothing depends on which environment, episode or step an observation is from: it comes
back exactly as it was given, whatever resets, truncations or n-step transitions lie between two observations.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hvd_dqn.replay.observations import Observations
from hvd_dqn.replay.rows import Rows
from hvd_dqn.replay.stacks import equal, follow, newest_frames, put_together, take_apart
from hvd_dqn.transition import Transition, TransitionForm

_AT_A_TIME = 16
"""Observations that are taken apart at a time: few enough for the processor's cache."""
_REMEMBERED_BYTES = 2**26
"""The most bytes of a batch of observations that is compared with the next one."""
_SMALLEST_TABLE = 2**16
_FREE = np.iinfo(np.int32).min
"""Count of a frame that no observation names."""


class _Batch(NamedTuple):
    """Observations that were put last."""

    observations: np.ndarray  # copies [N, *observation_shape]
    numbers: np.ndarray  # int32 [N, C], of their frames


class FramePool(Observations):
    """Frames that observations name by number; a frame's place is used again once no observation names it.

    Frame 0 is all zeros and always there. Other frames are looked up in a table by a hash of their bytes, and compared
    byte by byte. The table forgets a frame where another one takes its place: that costs the memory of a second copy.

    Usually an observation is that of the same row in the batch before, or follows it by one frame. Where comparing the
    bytes confirms this, nothing but a new frame is looked up.
    """

    def __init__(self, form: TransitionForm, capacity: int) -> None:
        """Reserves memory for one frame per transition (NumPy's zero pages, so it is charged as it fills).

        Args:
          form: of the transitions; C = `form.stacked_frames` divides the last dimension of observations.
          capacity: transitions whose observations name frames at a time.
        """
        self._form = form
        self._bytes = form.observation_bytes // form.stacked_frames
        words = -(-self._bytes // 8)
        self._frames = np.zeros((capacity + 1, words), np.uint64)
        self._counts = np.zeros(capacity + 1, np.int32)
        """How often observations name each frame."""
        self._used = 1  # frames that were ever in use
        self._free: list[int] = []
        bits = (max(_SMALLEST_TABLE, capacity) - 1).bit_length()
        self._table = np.zeros(2**bits, np.int32)
        self._shift = np.uint64(64 - bits)
        self._weights = np.random.default_rng(0).integers(2**63, size=words, dtype=np.uint64) * 2 + 1
        self._before: dict[str, _Batch] = {}
        """By column. They are stored until the next batch has been put: a replay overwrites older ones first."""

    @property
    def nbytes(self) -> int:
        """Returns the bytes that it takes when it is full."""
        return self._frames.nbytes + self._counts.nbytes + self._table.nbytes

    def column(self, capacity: int) -> np.ndarray:
        """Returns room for the numbers of some observations' frames, int32 [capacity, C]."""
        return np.zeros((capacity, self._form.stacked_frames), np.int32)

    def put(self, column: str, observations: np.ndarray) -> np.ndarray:
        """Stores observations [N, *observation_shape] and returns the numbers of their frames, int32 [N, C]."""
        stacked = self._form.stacked_frames
        numbers = np.empty((len(observations), stacked), np.int32)
        unknown = np.ones(len(observations), np.bool_)
        reached, own = self._before.get("s_t"), self._before.pop(column, None)
        if reached is not None and reached.observations.shape == observations.shape:
            same = equal(observations, reached.observations)
            numbers[same] = reached.numbers[same]
            unknown ^= same
        if unknown.any() and observations.nbytes <= _REMEMBERED_BYTES:
            self._before[column] = _Batch(observations.copy(), numbers)
        if own is not None and own.observations.shape == observations.shape and unknown.any():
            following = unknown & follow(observations, own.observations, stacked)
            numbers[following, :-1] = own.numbers[following, 1:]
            numbers[following, -1] = self._find_or_store(newest_frames(observations, stacked)[following])
            unknown ^= following
        others = np.flatnonzero(unknown)
        for start in range(0, len(others), _AT_A_TIME):
            part = others[start : start + _AT_A_TIME]
            frames = take_apart(observations[part], stacked)  # [n, C, ...]
            numbers[part] = self._find_or_store(frames.reshape(len(part) * stacked, -1)).reshape(-1, stacked)
        np.add.at(self._counts, numbers.ravel(), 1)
        return numbers

    def release(self, column: np.ndarray, places: slice | np.ndarray) -> None:
        """Frees the frames that no other observation names; see `Observations`."""
        numbers = column[places].ravel()
        np.subtract.at(self._counts, numbers, 1)
        dead = np.unique(numbers[(self._counts[numbers] == 0) & (numbers != 0)])
        self._counts[dead] = _FREE
        self._free += dead.tolist()

    def take(self, stored: Transition, indices: np.ndarray, out: Transition) -> None:
        """Puts observations together; see `Observations`. Those of a transition share frames."""
        stacked, shape = self._form.stacked_frames, (indices.size, *self._form.observation_shape)
        earlier, later = (column[indices.ravel()] for column in (stored.s_tm1, stored.s_t))  # [N, C]
        s_tm1, s_t = out.s_tm1.reshape(shape), out.s_t.reshape(shape)

        def newer(part: slice) -> int:
            """Returns by how many frames the stacks s_t of some transitions are all newer than s_tm1; C for others."""
            moves = range(1, stacked)
            return next((m for m in moves if (later[part, :-m] == earlier[part, m:]).all()), stacked)

        put_together(lambda part, place: self._copies(earlier[part, place]), stacked, s_tm1)
        put_together(lambda part, place: self._copies(later[part, place]), stacked, s_t, (s_tm1, newer))

    def rows(self, columns: Transition) -> Rows:
        """Returns rows with copies of the frames that they name, each once."""
        return Rows.naming(columns, self._copies)

    def _copies(self, numbers: np.ndarray) -> np.ndarray:
        """Returns copies of frames [F, *frame_shape] by their numbers [F]."""
        words = self._frames.take(numbers, axis=0, mode="clip")
        frames = words.view(np.uint8)[:, : self._bytes].view(self._form.observation_dtype)
        return frames.reshape(len(words), *self._form.frame_shape)

    def _find_or_store(self, frames: np.ndarray) -> np.ndarray:
        """Returns the numbers int32 [M] of frames [M, ...]."""
        words = self._words(frames)  # [M, words]
        hashes = (words ^ (words >> np.uint64(29))) @ self._weights  # [M]
        places = hashes >> self._shift
        numbers = self._table[places]
        missing = np.flatnonzero(~self._holds(numbers, words))
        while len(missing):
            first = np.unique(hashes[missing], return_index=True)[1]
            new = missing[first]
            numbers[new] = self._table[places[new]] = self._store(words[new])
            missing = np.delete(missing, first)  # those with the hash of one that was stored just now
            numbers[missing] = self._table[places[missing]]
            missing = missing[~self._holds(numbers[missing], words[missing])]
        return numbers

    def _words(self, frames: np.ndarray) -> np.ndarray:
        """Returns contiguous frames [M, ...] as uint64 [M, words], the last one filled up by zeros."""
        content = frames.view(np.uint8).reshape(len(frames), self._bytes)
        if self._bytes % 8:
            words = np.zeros((len(frames), self._frames.shape[1]), np.uint64)
            words.view(np.uint8)[:, : self._bytes] = content
            return words
        return content.view(np.uint64)

    def _holds(self, numbers: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Returns bool [M], whether frames in use have these numbers [M] and contents [M, words]."""
        same: np.ndarray = (self._frames.take(numbers, axis=0, mode="clip") == words).all(axis=1)
        return same & (self._counts[numbers] != _FREE)

    def _store(self, words: np.ndarray) -> np.ndarray:
        """Stores frames uint64 [M, words] and returns their numbers int32 [M]."""
        again = len(self._free) - min(len(self._free), len(words))
        new = np.arange(self._used, self._used + len(words) - (len(self._free) - again))
        numbers = np.concatenate([self._free[again:], new]).astype(np.int32)
        del self._free[again:]
        self._used += len(new)
        if self._used > len(self._frames):
            size = self._used + max(64, self._used // 64)
            # A new array would take twice the memory while it is filled; no view of these leaves the pool.
            self._frames.resize((size, self._frames.shape[1]), refcheck=False)
            self._counts.resize(size, refcheck=False)
        self._frames[numbers] = words
        self._counts[numbers] = 0
        return numbers
