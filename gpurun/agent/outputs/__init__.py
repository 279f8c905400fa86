"""What a run wrote."""
