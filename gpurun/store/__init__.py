"""What the laptop remembers: runs, their checkpoints, submits that have begun."""
