"""Vectors of one length that a compiled exchange sums over the ranks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from hvd_dqn.distributed.communicator import CompiledExchange, cannot_fail
from hvd_dqn.native.library import LastAddress, function_address


class ExchangedVector:
    """The ranks' vectors [N] and their sum."""

    def __init__(
        self,
        function: Any,
        exchange: ctypes.Structure,
        result: np.ndarray,
        failure: Callable[[], Exception] = cannot_fail,
    ) -> None:
        """Takes the exchange.

        Args:
          function: of the kernels, an `exchange_function` of host_learner.c.
          exchange: its context, whose address stays.
          result: where it leaves the sum, float32 [N]; nobody writes there through this array any more.
          failure: tells of the last sum, if it failed.
        """
        self._function, self._exchange, self._result = function, exchange, result
        self._result.flags.writeable = False
        self._own = LastAddress()
        self.compiled = CompiledExchange(function_address(function), ctypes.addressof(exchange), failure)
        """The same sum for compiled code."""

    def sum(self, vector: np.ndarray) -> np.ndarray:
        """Returns the sum over the ranks of float32 [N], read-only, in memory that the next call changes.

        Raises:
          ConnectionError: if a rank was lost on another host.
        """
        if not self._function(self.compiled.context, self._own.of(vector)):
            raise self.compiled.failure()
        return self._result
