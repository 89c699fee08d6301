"""The top floor beside train.py: assembles the job from both halves, and the procedures that need both."""
