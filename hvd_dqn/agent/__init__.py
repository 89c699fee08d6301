"""Networks, learner, actor, exploration of one rank; knows no ranks."""
