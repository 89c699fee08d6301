"""hvd_dqn: synchronous, data-parallel Deep Q-Networks on Horovod."""

from typing import TYPE_CHECKING, Any

from hvd_dqn.version import __version__

if TYPE_CHECKING:
    from hvd_dqn.api import Run as Run
    from hvd_dqn.api import load as load

__all__ = ["Run", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports what a notebook uses when it is used: `train.py --help` does not wait for TensorFlow."""
    if name in ("Run", "load"):
        from hvd_dqn import api

        return getattr(api, name)
    raise AttributeError(f"module 'hvd_dqn' has no attribute {name!r}")
