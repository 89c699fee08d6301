"""Warns where returns lie outside the range that a categorical algorithm can represent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hvd_dqn.envs.return_range import ReturnRange


class ValueRange:
    """Adds the range of the discounted returns over all ranks to each training record, and warns once."""

    def __init__(self, seen: ReturnRange, lowest: float, highest: float, warn: Callable[[str], None]) -> None:
        """Compares nothing yet.

        Args:
          seen: this rank's returns.
          lowest: --value-min.
          highest: --value-max.
          warn: called with the warning, on rank 0.
        """
        self._seen, self._lowest, self._highest = seen, lowest, highest
        self._warn = warn
        self._warned = False

    def local(self) -> dict[str, Any]:
        """Returns this rank's range; nothing before its first episode has ended."""
        seen = self._seen.lowest, self._seen.highest
        return {"returns_from_to": list(seen)} if seen[0] <= seen[1] else {}

    def summarize(self, parts: list[dict[str, Any]]) -> dict[str, float]:
        """Returns the range over all ranks."""
        ranges = [part["returns_from_to"] for part in parts if "returns_from_to" in part]
        if not ranges:
            return {}
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        if not self._warned and (low < self._lowest or high > self._highest):
            self._warned = True
            self._warn(
                f"discounted returns from {low:.4g} to {high:.4g} were seen, and values from {self._lowest:g} to "
                f"{self._highest:g} can be represented: start a run with --value-min and --value-max around the first, "
                "with room for returns that are still to be learned"
            )
        return {"lowest_discounted_return": low, "highest_discounted_return": high}
