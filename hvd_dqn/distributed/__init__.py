"""Ranks and their collectives: the only importer of Horovod and mpi4py."""
