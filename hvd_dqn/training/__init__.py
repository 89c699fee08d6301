"""The top floor below train.py: assembles the job, and implements the hooks of the loop."""
