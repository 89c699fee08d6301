"""What `import hvd_dqn` offers a notebook or a program."""
