"""rejax's DQN: environments, replay and updates in one JAX program, nothing of it in Python.

Its environments are gymnax's: other implementations of CartPole and MinAtar's Breakout than everybody else's, with
the same rules. It makes its updates after each vector step, so the number of environments is the burst.
"""

from __future__ import annotations

import jax
from comparison.protocol import NotApplicable, Stopwatch, Task, serve
from flax import linen
from rejax.algos.dqn import DQN
from rejax.networks import DiscreteQNetwork, EpsilonGreedyPolicy

ENVIRONMENTS = {"CartPole-v1": "CartPole-v1", "Flat/Breakout-v1": "Breakout-MinAtar"}
ITERATIONS_PER_CALL = 200
"""Vector steps between two looks at the clock."""


def run(task: Task, stopwatch: Stopwatch) -> None:
    """Trains until the stopwatch is satisfied."""
    case, n = task.case, task.num_envs
    if case.env not in ENVIRONMENTS:
        raise NotApplicable(f"{case.env} does not exist in JAX")
    if task.env_steps_per_burst != n:
        raise NotApplicable(f"{n} environments are no multiple of {case.train_period} env steps")
    algorithm = DQN.create(
        env=ENVIRONMENTS[case.env],
        learning_rate=case.learning_rate,
        gamma=case.gamma,
        max_grad_norm=case.max_grad_norm,
        num_envs=n,
        num_epochs=task.updates_per_burst,
        buffer_size=case.replay_capacity // n * n,
        fill_buffer=case.learning_starts,
        batch_size=case.batch_size,
        eps_start=case.epsilon,
        eps_end=case.epsilon,
        target_update_freq=case.target_update_period * case.train_period,
        ddqn=False,
        normalize_observations=False,
        normalize_rewards=False,
    )
    network = EpsilonGreedyPolicy(DiscreteQNetwork)(
        hidden_layer_sizes=case.hidden_sizes, action_dim=algorithm.action_dim, activation=linen.relu
    )
    algorithm = algorithm.replace(agent=network)

    @jax.jit
    def iterations(state: object) -> object:
        return jax.lax.fori_loop(0, ITERATIONS_PER_CALL, lambda _, s: algorithm.train_iteration(s), state)

    state = algorithm.init_state(jax.random.PRNGKey(task.seed))
    while not stopwatch.tick(int(state.global_step), int(state.q_ts.step)):
        state = iterations(state)


if __name__ == "__main__":
    serve(run)
