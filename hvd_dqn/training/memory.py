"""Estimates what a job takes of its hosts' memory, and refuses what cannot fit before any of it is taken."""

from __future__ import annotations

import itertools
from math import prod
from typing import NamedTuple

from hvd_dqn.config import Config
from hvd_dqn.distributed.communicator import Communicator
from hvd_dqn.distributed.memory import machine, usable_memory
from hvd_dqn.envs.spaces import Spaces
from hvd_dqn.errors import UserError
from hvd_dqn.networks.spec import choose_network
from hvd_dqn.training.parts import make_algorithm
from hvd_dqn.validation import Shares

_COPIES_OF_PARAMETERS = 6
"""Online and target network, two vectors of the optimizer, the gradient, and the copy to act with."""
_COPIES_OF_OUTPUTS = 3
"""For a batch: of the online and the target network, and the gradient."""
_PER_PIXEL = {"cnn": (64, 512), "impala": (32, 256)}
"""Channels of the last convolution, whose images are an eighth as high and wide, and units of the hidden layer."""
_BYTES_PER_ENVIRONMENT = 1024
_BYTES_PER_PROCESS = 2**24
"""What an environment takes at least, in this process and in one of its own."""
_FLAGS = {
    "replay": "--replay-capacity",
    "batches": "--num-envs or --global-batch-size, or raise --train-period",
    "outputs": "--global-batch-size, --atoms or --quantiles",
    "network": "--hidden-sizes",
    "environments": "--num-envs",
}
Bytes = dict[str, int]


class Memory(NamedTuple):
    """What the job takes on this host."""

    description: str
    """For the start report."""
    warning: str
    """"" if the replay fits when it is full."""


def check_memory(
    config: Config, own: Shares, spaces: Spaces, communicator: Communicator, may_refuse: bool = True
) -> Memory:
    """Compares what the ranks of each host need with what they may use; a collective.

    Args:
      config: the scaled configuration.
      own: this rank's shares.
      spaces: the environment's.
      communicator: the job's.
      may_refuse: False in an elastic job whose ranks have changed: what is usable is what its ranks leave.

    Raises:
      UserError: on all ranks, if a host has too little.
    """
    needs = _needs(config, own, spaces, communicator.size)
    part = {"machine": machine(), "usable": usable_memory(), "needs": needs, "row": spaces.transition_form.stored_bytes}
    parts = communicator.gather_json(part | {"capacity": own.replay_capacity_per_rank})  # COLLECTIVE
    for host in {part["machine"]: part["machine"] for part in parts}:
        ranks = [part for part in parts if part["machine"] == host]
        usable = min(part["usable"] for part in ranks)
        total = {name: sum(part["needs"][name] for part in ranks) for name in needs}
        if may_refuse and sum(total.values()) > usable:
            raise UserError(_too_little(host.split()[-1], len(ranks), total, usable))
    ranks = [part for part in parts if part["machine"] == machine()]
    full, usable = sum(part["row"] * part["capacity"] for part in ranks), min(part["usable"] for part in ranks)
    warning = (
        f"a full replay takes {_gibibytes(full)}, and this host has {_gibibytes(usable)}: this run does not fill it, "
        "but a longer one will not fit; lower --replay-capacity"
    )
    return Memory(f"replay {_gibibytes(full)} when full, of {_gibibytes(usable)} here", warning * (full > usable))


def replay_too_large(own: Shares, spaces: Spaces) -> str:
    """Returns what to say if the system refuses the replay's memory."""
    full = own.replay_capacity_per_rank * spaces.transition_form.stored_bytes
    return f"this host cannot give a rank {_gibibytes(full)} for its replay: lower --replay-capacity"


def _needs(config: Config, own: Shares, spaces: Spaces, size: int) -> Bytes:
    """Returns the bytes that this rank takes at least in this run, by what takes them."""
    form = spaces.transition_form
    filled = min(own.replay_capacity_per_rank, -(-config.job.total_env_steps // size))
    updates = max(1, config.environment.num_envs // config.learner.train_period)
    processes = config.environment.vectorization == "async"
    each = (_BYTES_PER_PROCESS if processes else _BYTES_PER_ENVIRONMENT) + 2 * form.observation_bytes
    return {
        "replay": filled * form.stored_bytes,
        "batches": updates * own.batch_size_per_rank * form.row_bytes,
        "outputs": 4 * _COPIES_OF_OUTPUTS * own.batch_size_per_rank * _outputs(config, spaces),
        "network": 4 * _COPIES_OF_PARAMETERS * _parameters(config, spaces),
        "environments": own.num_envs_per_rank * each,
    }


def _parameters(config: Config, spaces: Spaces) -> int:
    """Returns about how many parameters the network has."""
    shape = spaces.network_shape
    outputs = _outputs(config, spaces)
    sizes = [spaces.num_categories or prod(shape), *config.network.hidden_sizes, outputs]
    network = choose_network(config.network.network, shape, spaces.observation_dtype)
    if network in _PER_PIXEL:
        channels, hidden = _PER_PIXEL[network]
        sizes = [channels * config.network.impala_width * (shape[0] // 8) * (shape[1] // 8), hidden, outputs]
    return sum(inputs * outputs for inputs, outputs in itertools.pairwise(sizes))


def _outputs(config: Config, spaces: Spaces) -> int:
    """Returns how many outputs the network has for an observation."""
    return int(make_algorithm(config).outputs_per_action) * spaces.num_actions * (len(spaces.joint_bins) or 1)


def _too_little(host: str, ranks: int, total: Bytes, usable: int) -> str:
    parts = ", ".join(f"{name} {_gibibytes(count)}" for name, count in total.items())
    largest = max(total, key=lambda name: total[name])
    return (
        f"this job takes at least {_gibibytes(sum(total.values()))} of memory for {ranks} rank(s) on {host}, which may "
        f"use {_gibibytes(usable)} ({parts}): lower {_FLAGS[largest]}, or use more hosts"
    )


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
