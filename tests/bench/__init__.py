"""Figures, printed and never asserted: gpurun beside what a user types by hand. `make bench`, or `python -m tests.bench`."""
