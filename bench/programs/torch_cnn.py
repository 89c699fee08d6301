#!/usr/bin/env python
"""Times the Nature CNN's gradient of one batch, the target network's forward pass included, in PyTorch on one core.

torch_cnn.py BATCH                (in the peers' environment; prints milliseconds, one per repetition)
"""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

BATCH, ACTIONS = int(sys.argv[1]), 6


def network() -> nn.Module:
    """Returns the network of Mnih et al. (2015), in the layout that its convolutions like best."""
    convolutions = nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1)
    dense = nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, ACTIONS)
    return nn.Sequential(*convolutions, *dense).to(memory_format=torch.channels_last)


def main() -> None:
    """Prints the milliseconds of seven repetitions."""
    torch.set_num_threads(1)
    online, target = network(), network()
    s_tm1, s_t = (torch.rand(BATCH, 4, 84, 84).to(memory_format=torch.channels_last) for _ in range(2))
    actions = torch.randint(ACTIONS, (BATCH, 1))
    for repetition in range(8):
        start = time.perf_counter()
        for _ in range(10):
            with torch.no_grad():
                targets = target(s_t).max(1, keepdim=True)[0]
            online.zero_grad()
            nn.functional.smooth_l1_loss(online(s_tm1).gather(1, actions), targets).backward()
        if repetition:
            print(1e3 * (time.perf_counter() - start) / 10, flush=True)


if __name__ == "__main__":
    main()
