"""Provide the images of jobs, and install a project's dependencies in them."""
