"""Talking to the agent on a host."""
