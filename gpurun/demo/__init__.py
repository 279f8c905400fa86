"""gpurun with nothing but this machine: an SSH host inside the process, and a real job on it."""
