"""All C code, its loader, and the native learner of small networks on CPUs."""
