"""Experience replay of one rank; knows no ranks and no TensorFlow."""
