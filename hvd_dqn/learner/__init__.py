"""The learner: K updates in one call, flat parameters, optimizers, action values, policy; knows no ranks."""
