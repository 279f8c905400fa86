"""Decide which run gets which GPUs, and when."""
