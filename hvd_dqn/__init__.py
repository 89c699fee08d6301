"""hvd_dqn: synchronous, data-parallel Deep Q-Networks on Horovod."""

__version__ = "0.2.0.dev0"
