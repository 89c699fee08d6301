"""A trained network in other programs' formats."""
