"""The rules by which a Q-network learns, as pure functions."""
