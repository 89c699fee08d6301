"""Front doors: the command line of training."""
