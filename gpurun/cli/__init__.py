"""The command line: the one floor that prints and asks."""
