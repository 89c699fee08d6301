"""Counts what PyTorch's optimizers really do, whatever a library's own counters say; one thread only."""

from __future__ import annotations

from typing import Any


class OptimizerSteps:
    """Counts every `step()` of every PyTorch optimizer of this process."""

    def __init__(self) -> None:
        """Starts to count and limits PyTorch to one thread."""
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        torch.set_num_threads(1)
        self.count = 0
        register_optimizer_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.count += 1
