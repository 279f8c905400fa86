"""Use cases of `gpurun host`."""
