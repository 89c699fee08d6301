"""C51 and Rainbow in plain PyTorch, with the hyper-parameters that CleanRL publishes for them.

CleanRL's own scripts need Gym and an environment; what is timed here is what they do in an update, from the formulas of
the papers: Bellemare et al. (2017), Algorithm 1, and Hessel et al. (2018). Of the prioritised draws only what NumPy
does faster is different: a cumulative sum over all rows, in place of a tree in Python.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import torch
from comparison.update_timing import ATOMS, GAMMA, UPDATES_PER_CALL, NetworkCase
from torch import nn

VALUE_MIN, VALUE_MAX = -10.0, 10.0
_ALPHA, _BETA, _SMALLEST = 0.5, 0.4, 1e-6


def torso(case: NetworkCase) -> tuple[nn.Module, int]:
    """Returns the layers before the hidden ones, for float observations, and their number of outputs."""
    if len(case.shape) == 1:
        return nn.Identity(), case.shape[0]
    channels = case.shape[-1]
    if case.shape[0] == 10:
        return nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten()), 1024
    layers = nn.Sequential(
        *(Scale(), nn.Conv2d(channels, 32, 8, 4), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
    )
    return layers, 3136


class Scale(nn.Module):
    """Divides bytes by 255."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scales."""
        return x / 255.0


class NoisyLinear(nn.Module):
    """A layer with factorised noise, drawn by `draw` (Fortunato et al. 2018)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Creates means and deviations."""
        super().__init__()
        bound = inputs**-0.5
        self.mean = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.deviation = nn.Parameter(torch.full((outputs, inputs), 0.5 * bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.bias_deviation = nn.Parameter(torch.full((outputs,), 0.5 * bound))
        self.draw()

    def draw(self) -> None:
        """Draws new noise."""
        rows, columns = (torch.randn(size) for size in self.mean.shape)
        rows, columns = (x.sign() * x.abs().sqrt() for x in (rows, columns))
        self.noise, self.bias_noise = torch.outer(rows, columns), rows

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer under the present noise."""
        weight = self.mean + self.deviation * self.noise
        return nn.functional.linear(x, weight, self.bias + self.bias_deviation * self.bias_noise)


class CategoricalNetwork(nn.Module):
    """Logits [B, A, Z] of the return's distribution; with `rainbow` in two streams of noisy layers."""

    def __init__(self, case: NetworkCase, rainbow: bool) -> None:
        """Builds torso and streams."""
        super().__init__()
        self.torso, size = torso(case)
        self.actions = case.actions
        linear = NoisyLinear if rainbow else nn.Linear

        def stream(last: int) -> nn.Sequential:
            sizes = (size, *case.hidden)
            hidden = [part for i, o in itertools.pairwise(sizes) for part in (linear(i, o), nn.ReLU())]
            return nn.Sequential(*hidden, linear(sizes[-1], last))

        self.advantages = stream(case.actions * ATOMS)
        self.value = stream(ATOMS) if rainbow else None

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        features = self.torso(s.float())
        advantages = self.advantages(features).view(-1, self.actions, ATOMS)
        if self.value is None:
            return advantages
        return self.value(features).view(-1, 1, ATOMS) + advantages - advantages.mean(1, keepdim=True)

    def draw(self) -> None:
        """Draws new noise for all layers."""
        for module in self.modules():
            if isinstance(module, NoisyLinear):
                module.draw()


class C51:
    """CleanRL's c51_atari.py: Adam 2.5e-4, epsilon 0.01 / batch."""

    learning_rate, epsilon, steps, rainbow = 2.5e-4, None, 1, False

    def __init__(self, case: NetworkCase, buffer: Any) -> None:
        """Takes a full replay buffer."""
        self._batch, self._buffer = case.batch, buffer
        self.online = CategoricalNetwork(case, self.rainbow)
        self.target = copy.deepcopy(self.online)
        epsilon = 0.01 / case.batch if self.epsilon is None else self.epsilon
        self._optimizer = torch.optim.Adam(self.online.parameters(), self.learning_rate, eps=epsilon)
        self._atoms = torch.linspace(VALUE_MIN, VALUE_MAX, ATOMS)
        self._spacing = (VALUE_MAX - VALUE_MIN) / (ATOMS - 1)

    def __call__(self) -> None:
        """Makes the updates of a call."""
        for _ in range(UPDATES_PER_CALL):
            self.update()

    def update(self) -> None:
        """Makes one update."""
        self._step(self._losses(self._buffer.sample(self._batch)).mean())

    def _losses(self, data: Any) -> torch.Tensor:
        rows = torch.arange(len(data.actions))
        with torch.no_grad():
            target = self.target(data.next_observations).softmax(2)  # [B, A, Z]
            chooser = self.online(data.next_observations).softmax(2) if self.rainbow else target
            best = (chooser * self._atoms).sum(2).argmax(1)
            discount = GAMMA**self.steps * (1.0 - data.dones)
            moved = (data.rewards + discount * self._atoms).clamp(VALUE_MIN, VALUE_MAX)  # [B, Z]
            place = (moved - VALUE_MIN) / self._spacing
            low, high = place.floor().clamp(0, ATOMS - 1), place.ceil().clamp(0, ATOMS - 1)
            mass = target[rows, best]
            projected = torch.zeros_like(mass)
            projected.scatter_add_(1, low.long(), mass * (high + (low == high).float() - place))
            projected.scatter_add_(1, high.long(), mass * (place - low))
        logits = self.online(data.observations)[rows, data.actions.flatten().long()]
        return -(projected * logits.log_softmax(1)).sum(1)  # [B]

    def _step(self, loss: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


class Rainbow(C51):
    """CleanRL's rainbow_atari.py: C51, double, dueling, noisy, three steps, prioritised; Adam 6.25e-5, 1.5e-4."""

    learning_rate, epsilon, steps, rainbow = 6.25e-5, 1.5e-4, 3, True

    def __init__(self, case: NetworkCase, buffer: Any) -> None:
        """Takes a full replay buffer; all priorities are one."""
        super().__init__(case, buffer)
        self._priorities, self._rng = np.ones(buffer.buffer_size), np.random.default_rng(0)

    def update(self) -> None:
        """Makes one update, then sets the priorities."""
        self.online.draw()
        self.target.draw()
        powers = self._priorities**_ALPHA
        sums = np.cumsum(powers)
        drawn = np.searchsorted(sums, self._rng.random(self._batch) * sums[-1])
        weights = (len(powers) * powers[drawn] / sums[-1]) ** -_BETA
        losses = self._losses(self._buffer._get_samples(drawn))
        self._step((losses * torch.as_tensor(weights / weights.max(), dtype=torch.float32)).mean())
        self._priorities[drawn] = losses.detach().numpy() + _SMALLEST
