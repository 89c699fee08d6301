"""Independent random streams from one seed, addressed by purpose and index."""

from __future__ import annotations

import zlib

import numpy as np


def _sequence(seed: int, stream: str, *index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *index])


def generator(seed: int, stream: str, *index: int) -> np.random.Generator:
    """Returns the generator of a stream, for example ("replay", rank). Streams are independent."""
    return np.random.default_rng(_sequence(seed, stream, *index))


def integer_seed(seed: int, stream: str, *index: int) -> int:
    """Returns a 31-bit seed of a stream, for libraries that need an integer."""
    return int(_sequence(seed, stream, *index).generate_state(1)[0] >> 1)
