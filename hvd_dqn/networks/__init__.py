"""Q-networks as Keras models."""
