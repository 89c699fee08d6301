"""Ranks that come and go under Horovod's elastic driver. `train.py` enters it through `entry`; nothing else does."""
