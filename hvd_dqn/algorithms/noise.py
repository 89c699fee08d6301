"""Random numbers inside an update: the same for a row of the global batch at any number of ranks."""

from __future__ import annotations

import tensorflow as tf


class Noise:
    """Draws by (seed, update, row of the global batch), so that resuming needs no state and W changes nothing."""

    def __init__(self, seed: int, update: tf.Tensor, first_row: int, rows: int, global_rows: int) -> None:
        """Addresses the draws of one update.

        Args:
          seed: the run's.
          update: int32 scalar, the number of the update.
          first_row: row of the global batch at which this rank's rows begin.
          rows: B, this rank's rows.
          global_rows: rows of the global batch.
        """
        self._seed, self._update = seed, update
        self._own, self._global_rows = slice(first_row, first_row + rows), global_rows
        self._draws = 0

    def uniform(self, *shape: int) -> tf.Tensor:
        """Draws float32 [B, *shape] from [0, 1); each call of an update draws anew."""
        return tf.random.stateless_uniform([self._global_rows, *shape], self._next_seed(), alg="philox")[self._own]

    def normal(self, *shape: int) -> tf.Tensor:
        """Draws float32 [B, *shape] from the standard normal distribution; each call of an update draws anew."""
        return tf.random.stateless_normal([self._global_rows, *shape], self._next_seed(), alg="philox")[self._own]

    def _next_seed(self) -> tf.Tensor:
        self._draws += 1
        return tf.stack([tf.constant(self._seed * 1_000_003 + self._draws, tf.int64), tf.cast(self._update, tf.int64)])
