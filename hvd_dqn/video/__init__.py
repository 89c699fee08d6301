"""Frames of an episode with its action values, written as a film."""
