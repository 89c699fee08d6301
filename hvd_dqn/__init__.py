"""hvd_dqn: synchronous, data-parallel Deep Q-Networks on Horovod."""

__version__ = "0.1.0"
