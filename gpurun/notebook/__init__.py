"""Convert notebooks to scripts, which run as jobs (agent/notebook has the module that they need in the job)."""
