"""Environments of one rank: construction, collection, the treasure maze; knows no ranks."""
