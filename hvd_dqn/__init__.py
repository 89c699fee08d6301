"""hvd_dqn: synchronous, data-parallel Deep Q-Networks on Horovod."""

import importlib
from typing import TYPE_CHECKING, Any

from hvd_dqn.version import __version__

if TYPE_CHECKING:
    from hvd_dqn.api.run import Run as Run
    from hvd_dqn.api.run import load as load
    from hvd_dqn.api.train import train as train

__all__ = ["Run", "__version__", "load", "train"]

_PLACES = {"Run": "hvd_dqn.api.run", "load": "hvd_dqn.api.run", "train": "hvd_dqn.api.train"}


def __getattr__(name: str) -> Any:
    """Imports what a notebook uses when it is used: `train.py --help` does not wait for TensorFlow."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'hvd_dqn' has no attribute {name!r}")
