"""Random numbers inside an update: the same for a row of the global batch at any number of ranks."""

from __future__ import annotations

import math

import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_WORD = 2**32
_GOLDEN_RATIO = 0x9E3779B9


class Noise:
    """Draws by (seed, update, row of the global batch), so that resuming needs no state and W changes nothing.

    TensorFlow's own generators give other numbers in an XLA cluster than outside of one, even with one algorithm.
    """

    def __init__(self, seed: int, update: tf.Tensor, first_row: int, rows: int, global_rows: int) -> None:
        """Addresses the draws of one update.

        Args:
          seed: the run's.
          update: int32 scalar, the number of the update.
          first_row: row of the global batch at which this rank's rows begin.
          rows: B, this rank's rows.
          global_rows: rows of the global batch.
        """
        assert first_row + rows <= global_rows
        self._seed, self._update = seed, tf.cast(update, tf.uint32)
        self._rows = tf.range(first_row, first_row + rows)
        self._after_rows = tf.range(global_rows, global_rows + 1)
        self._draws = 0

    def uniform(self, *shape: int) -> tf.Tensor:
        """Draws float32 [B, *shape] from [0, 1); each call of an update draws new numbers."""
        return _fraction(self._words(self._rows, shape)[0])

    def normal(self, *shape: int) -> tf.Tensor:
        """Draws float32 [B, *shape] from the standard normal distribution; each call of an update draws new numbers.

        Splits and compilers agree on them to rounding.
        """
        return _normal(self._words(self._rows, shape))

    def shared_normal(self, count: int) -> tf.Tensor:
        """Draws float32 [N] from the standard normal distribution, the same for all rows and ranks."""
        return _normal(self._words(self._after_rows, (count,)))[0]

    def _words(self, rows: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Returns random words, uint32 [2, B, *shape]."""
        self._draws += 1
        key = tf.constant((self._seed + self._draws * _GOLDEN_RATIO) % _WORD, tf.uint32)
        columns = tf.range(math.prod(shape))
        row, column = tf.meshgrid(tf.cast(rows, tf.uint32), tf.cast(columns, tf.uint32), indexing="ij")  # [B, N]
        return tf.reshape(threefry(key, self._update, row, column), [2, rows.shape[0], *shape])


def threefry(key_0: tf.Tensor, key_1: tf.Tensor, word_0: tf.Tensor, word_1: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Encrypts counters: Threefry-2x32 with 20 rounds, Salmon et al. (2011), https://doi.org/10.1145/2063384.2063405.

    Args:
      key_0: uint32 scalar.
      key_1: uint32 scalar.
      word_0: uint32 [...].
      word_1: uint32 [...].

    Returns:
      Two uint32 [...].
    """
    bits = tf.bitwise
    parity = bits.bitwise_xor(bits.bitwise_xor(key_0, key_1), tf.constant(0x1BD11BDA, tf.uint32))
    keys = (key_0, key_1, parity)
    word_0, word_1 = word_0 + key_0, word_1 + key_1
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            word_0 += word_1
            left = bits.left_shift(word_1, tf.constant(rotation, tf.uint32))
            right = bits.right_shift(word_1, tf.constant(32 - rotation, tf.uint32))
            word_1 = bits.bitwise_xor(bits.bitwise_or(left, right), word_0)
        word_0 += keys[(group + 1) % 3]
        word_1 += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return word_0, word_1


def _normal(words: tf.Tensor) -> tf.Tensor:
    """Returns a normal number for each pair of words [2, ...] (Box & Muller 1958).

    The radius and the cosine are rows of one tensor, whose product is a reduction: XLA would compute anything else
    again wherever the number is used, as for each weight that a noise multiplies.
    """
    uniform = _fraction(words)
    is_radius = tf.reshape([True, False], [2] + [1] * (len(words.shape) - 1))
    factors = tf.where(is_radius, tf.sqrt(-2.0 * tf.math.log(1.0 - uniform)), tf.cos(2.0 * math.pi * uniform))
    return tf.reduce_prod(factors, axis=0)


def _fraction(word: tf.Tensor) -> tf.Tensor:
    """Returns a word's upper 24 bits as float32 in [0, 1), exactly."""
    return tf.cast(tf.bitwise.right_shift(word, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24
