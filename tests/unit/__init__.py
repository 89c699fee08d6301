"""Unit tests: one process, no launcher, no Horovod."""
