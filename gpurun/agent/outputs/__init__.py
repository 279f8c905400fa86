"""Find and collect the files that a run wrote."""
