"""Everything that knows of ranks: the only folder that imports horovod and mpi4py."""
