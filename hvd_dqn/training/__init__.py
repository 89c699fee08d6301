"""Assembles the objects of one rank and runs the job; the loop itself is in train.py."""
