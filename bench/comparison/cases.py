"""The cases: one environment, network and replay ratio each, the same for every implementation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A DQN configuration; whatever is not here (loss, target copies by value) is each library's own."""

    name: str
    env: str
    """Gymnasium id; `Flat/Breakout-v1` is MinAtar's Breakout, flattened (comparison/minatar_ids.py)."""
    hidden_sizes: tuple[int, ...]
    """Units of the MLP's hidden layers (ReLU); none: the convolutional network of Mnih et al. (2015)."""
    batch_size: int
    train_period: int
    """Env steps per update."""
    learning_rate: float
    replay_capacity: int
    learning_starts: int
    """Env steps before the first update."""
    target_update_period: int
    """Updates between two copies to the target network."""
    gamma: float = 0.99
    epsilon: float = 0.05
    max_grad_norm: float = 10.0

    @property
    def is_atari(self) -> bool:
        """Whether observations are 84x84 grey images, four stacked, with four frames per env step."""
        return self.env.startswith("ALE/")


CASES = (
    Case("cartpole", "CartPole-v1", (120, 84), 128, 10, 1e-3, 50_000, 1_000, 50),
    # rl-baselines3-zoo's settings for CartPole-v1: 128 updates per 256 env steps.
    Case("cartpole-zoo", "CartPole-v1", (256, 256), 64, 2, 2.3e-3, 100_000, 1_000, 50),
    Case("lunarlander", "LunarLander-v3", (120, 84), 128, 10, 1e-3, 50_000, 1_000, 50),
    # rl-baselines3-zoo's settings for LunarLander: 4 updates per 4 env steps.
    Case("lunarlander-zoo", "LunarLander-v3", (256, 256), 128, 1, 6.3e-4, 50_000, 1_000, 250),
    Case("minatar", "Flat/Breakout-v1", (128, 128), 32, 1, 2.5e-4, 100_000, 1_000, 1_000),
    # A replay of 20,000 fits into memory twice over; its size does not change the speed of a draw.
    Case("atari", "ALE/Pong-v5", (), 32, 4, 1e-4, 20_000, 1_000, 250),
)
