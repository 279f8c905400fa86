"""What needs a GPU, tried on a real one: `make gpu`, or `tests/gpu/run.sh` where there is no make."""
