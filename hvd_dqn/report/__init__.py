"""Tables, figures and pages of runs, read from their directories."""
