"""Who gets GPUs, and when."""
