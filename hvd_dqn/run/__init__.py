"""The run directory, metrics, progress display, and requests to stop."""
