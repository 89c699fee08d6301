"""Disk, screen and signals; knows no ranks: the composition root calls it on rank 0."""
