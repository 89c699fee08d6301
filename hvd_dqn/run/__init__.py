"""The run directory, its records, the display, and requests to stop."""
