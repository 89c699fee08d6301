"""The algorithms, networks and replays by the names of `--algorithm`, `--network` and `--replay`.

A new one is one file and one line here. Each entry is "module:attribute", so that reading a name imports nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from hvd_dqn.errors import UserError, did_you_mean

ALGORITHMS = {
    "dqn": "hvd_dqn.algorithms.dqn:DQN",
    "munchausen": "hvd_dqn.algorithms.munchausen:MunchausenDQN",
    "c51": "hvd_dqn.algorithms.c51:C51",
    "hl-gauss": "hvd_dqn.algorithms.hl_gauss:HLGauss",
    "qr": "hvd_dqn.algorithms.qr:QRDQN",
    "iqn": "hvd_dqn.algorithms.iqn:IQN",
    "munchausen-iqn": "hvd_dqn.algorithms.munchausen_iqn:MunchausenIQN",
    "decqn": "hvd_dqn.algorithms.decqn:DecQN",
}
"""Classes with the protocol of `hvd_dqn.algorithms.base.Algorithm`."""
NETWORKS = {
    "mlp": "hvd_dqn.networks.mlp:build",
    "cnn": "hvd_dqn.networks.nature:build",
    "minatar": "hvd_dqn.networks.minatar:build",
    "impala": "hvd_dqn.networks.impala:build",
}
"""Functions NetworkSpec -> keras.Model."""
REPLAYS = {
    "uniform": "hvd_dqn.replay.ring:RingReplay",
    "prioritized": "hvd_dqn.replay.prioritized:PrioritizedReplay",
}
"""Classes with the protocol of `hvd_dqn.replay.base.Replay`."""


def check_registered(registry: dict[str, str], name: str, flag: str) -> None:
    """Checks a name.

    Raises:
      UserError: if it is not registered, with the nearest name that is.
    """
    if name not in registry:
        raise UserError(
            f"{flag} {name} is unknown{did_you_mean(name, registry)}: choose one of {', '.join(sorted(registry))}"
        )


def load(registry: dict[str, str], name: str) -> Any:
    """Imports and returns what a registered name stands for."""
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
