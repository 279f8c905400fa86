"""Take a run from its start to its end."""
