"""Notebooks as batch runs: made into scripts here, run as scripts there (agent/notebook has what they need in the job)."""
