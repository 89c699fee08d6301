"""Checkpoints: writing, reading, resharding, and where they lie."""
