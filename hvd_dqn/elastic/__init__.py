"""Ranks that come and go."""
