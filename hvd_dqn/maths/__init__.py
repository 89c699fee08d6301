"""Pure functions: targets, losses, optimizers, schedules, shares, statistics."""
