"""Training runs that must reach a score."""
