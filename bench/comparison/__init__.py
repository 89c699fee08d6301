"""The side-by-side measurement's parts: what is measured, how it is started, how it is judged."""
