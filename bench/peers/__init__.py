"""One module per peer: runs that library's DQN on a task and reports what it really did (comparison/protocol.py)."""
